"""How a step of the decoder is recorded on a GPU, and whether that is to be relied on.

Nothing is taken on trust: where recorded steps do not say what plain ones say, or cannot be recorded, plain ones are
used, and the log says so.
"""

from __future__ import annotations

import logging
import warnings
from typing import Any

import torch

from backend.engine.model.cuda_graphs import GraphedDecoder, Record, Run
from backend.engine.model.decoder import Decoder
from backend.engine.ops.device import CAPTURE_LOCK
from backend.errors import OutOfMemory
from backend.serving.faults import cause_of

_log = logging.getLogger(__name__)


class CudaGraphs:
    """Records what a function launches on a CUDA device, as a graph; all graphs share their scratch memory.

    The stream is its own: a graph that goes takes cuBLAS's workspace for the stream that it was recorded on along, and
    torch's default is one stream for all graphs of a process (pytorch issue 193402). Here the workspace is memory of
    the pool, which stays: an empty graph keeps it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        with warnings.catch_warnings():  # that it is empty
            warnings.simplefilter("ignore")
            self._keeper, _ = self._graph(lambda: torch.empty(0))

    def __call__(self, run: Run) -> Run:
        run()  # libraries choose kernels at their first call, which cannot be recorded
        graph, written = self._graph(run)

        def replay() -> torch.Tensor:
            graph.replay()
            return written

        replay.run = run  # type: ignore[attr-defined] # the memory that the graph reads must live as long as it
        return replay

    def _graph(self, run: Run) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
        """The graph of what `run` launches, and what it gives."""
        graph = torch.cuda.CUDAGraph()
        with CAPTURE_LOCK, torch.cuda.device(self._device):
            before = torch.cuda.current_stream()
            try:
                # what other threads do meanwhile, a load for instance, is none of the recording's business
                with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                    written = run()
            except BaseException:
                torch.cuda.set_stream(before)  # which torch forgets when a recording fails
                raise
        return graph, written


def recorded(decoder: Decoder, device: torch.device, rows: int, positions: int) -> Decoder | GraphedDecoder:
    """The decoder with recorded steps, on CUDA, if they say what its own steps say; else the decoder itself.

    `rows`, `positions`: see GraphedDecoder.
    """
    if device.type != "cuda":
        return decoder
    try:
        graphs = GraphedDecoder(decoder, CudaGraphs(device), rows, positions)
        if agree(decoder, graphs, device):
            graphs.forget()
            graphs.record = or_plain(graphs.record)
            return graphs
        _log.warning("recorded steps do not say what plain ones say; going on with plain ones")
    except Exception:  # noqa: BLE001 - drivers raise what they like, and there is another way
        _log.warning("steps cannot be recorded here; going on with plain ones", exc_info=True)
    return decoder


def or_plain(record: Record) -> Record:
    """What cannot be recorded any more, though it could before, is run as it is, and so is what comes after it.

    Raises where memory ran out.
    """
    can_record = True

    def attempt(run: Run) -> Run:
        nonlocal can_record
        try:
            return record(run) if can_record else run
        except Exception as error:
            if isinstance(cause_of(error), OutOfMemory):
                raise
            _log.warning("a step cannot be recorded; it and others are run as they are", exc_info=True)
            can_record = False
            return run

    return attempt


_TOLERANCE = 0.05  # of the largest logit: sixteen bits, and other kernels for other shapes
_TRIAL: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (  # rows that stay, lengths of prompts that join
    ((), (9, 5, 7)),
    ((2, 0), (6, 8, 4)),  # more than there is room for
    ((3,), ()),  # in a layout that is too large for it
)
_TRIAL_STEPS = 2  # after each of these


@torch.inference_mode()
def agree(decoder: Decoder, graphs: GraphedDecoder, device: torch.device) -> bool:
    """Whether both say the same of prompts of noise that come and go."""
    chance = torch.Generator(device="cpu").manual_seed(0)
    cache: Any = None
    rows: Any = None
    logits = torch.empty(0, decoder.vocabulary, device=device)
    for kept, lengths in _TRIAL:
        if kept:
            cache.keep(kept)
            rows.keep(kept)
            logits = logits[list(kept)]
        if lengths:
            shape = (len(lengths), max(lengths))
            embedded = decoder.embed(torch.randint(decoder.vocabulary, shape, generator=chance).to(device))
            prompts = embedded, torch.tensor(lengths, device=device)
            _, rows = graphs.prefill(*prompts, rows)
            news, cache = decoder.prefill(*prompts, cache)
            logits = torch.cat([logits, news])
        for _ in range(_TRIAL_STEPS):
            said = logits.argmax(dim=-1)
            logits, others = decoder.decode_step(said, cache), graphs.decode_step(said, rows)
            if not bool((logits - others).abs().max() <= _TOLERANCE * logits.abs().max()):  # false for nan, too
                return False
    return True
