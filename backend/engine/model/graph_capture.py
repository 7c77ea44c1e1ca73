"""Captures decode steps as CUDA graphs, and decides whether a model uses them.

Captured steps are used only where, at load, they computed what eager steps compute. Where they differ, or a step cannot
be captured, steps run eagerly and the log says so.
"""

from __future__ import annotations

import logging
import warnings
from typing import Any

import torch

from backend.engine.model.cuda_graphs import Capture, GraphedDecoder, Step
from backend.engine.model.decoder import Decoder
from backend.engine.ops.device import CAPTURE_LOCK
from backend.errors import OutOfMemory
from backend.serving.faults import cause_of

_log = logging.getLogger(__name__)


class CudaGraphs:
    """A Capture for a CUDA device. All its graphs share one memory pool for their intermediate results.

    It has a stream of its own. A graph that is destroyed takes along cuBLAS's workspace for the stream on which it was
    captured, and torch by default captures all graphs of a process on one stream (pytorch issue 193402). On this stream
    the workspace is memory of the pool, which an empty graph keeps.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        with warnings.catch_warnings():  # torch warns that the graph is empty
            warnings.simplefilter("ignore")
            self._pool_keeper, _ = self._graph(lambda: torch.empty(0))

    def __call__(self, step: Step) -> Step:
        step()  # libraries choose their kernels in the first call, which cannot be captured
        graph, output = self._graph(step)

        def replay() -> torch.Tensor:
            graph.replay()
            return output

        replay.step = step  # type: ignore[attr-defined] # keeps the memory that the graph reads
        return replay

    def _graph(self, step: Step) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
        """A graph of the kernels that `step` launches, and the step's output."""
        graph = torch.cuda.CUDAGraph()
        with CAPTURE_LOCK, torch.cuda.device(self._device):
            before = torch.cuda.current_stream()
            try:
                # thread_local: what other threads do meanwhile, a load for instance, does not break the capture
                with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                    output = step()
            except BaseException:
                torch.cuda.set_stream(before)  # torch does not restore it when a capture fails
                raise
        return graph, output


def with_cuda_graphs(decoder: Decoder, device: torch.device, rows: int, positions: int) -> Decoder | GraphedDecoder:
    """The decoder with captured steps, if `device` is CUDA and they compute what eager steps do; else the decoder.

    `rows`, `positions`: see GraphedDecoder.
    """
    if device.type != "cuda":
        return decoder
    try:
        graphed = GraphedDecoder(decoder, CudaGraphs(device), rows, positions)
        if logits_agree(decoder, graphed, device):
            graphed.release()
            graphed.capture = or_eager(graphed.capture)
            return graphed
        _log.warning("CUDA graphs do not compute what eager steps compute; decoding with eager steps")
    except Exception:  # noqa: BLE001 - foreign code: drivers raise anything, and eager steps need none of it
        _log.warning("decode steps cannot be captured as CUDA graphs; decoding with eager steps", exc_info=True)
    return decoder


def or_eager(capture: Capture) -> Capture:
    """A Capture that falls back to the eager step when `capture` fails, and for every step after that.

    Raises where memory ran out.
    """
    can_capture = True

    def attempt(step: Step) -> Step:
        nonlocal can_capture
        try:
            return capture(step) if can_capture else step
        except Exception as error:
            if isinstance(cause_of(error), OutOfMemory):
                raise
            _log.warning("a decode step cannot be captured; new batch shapes run eagerly", exc_info=True)
            can_capture = False
            return step

    return attempt


_TOLERANCE = 0.05  # of the largest logit: 16 bits, and other shapes run other kernels
_TRIAL: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (  # rows that are kept, lengths of prompts that join
    ((), (9, 5, 7)),
    ((2, 0), (6, 8, 4)),  # more rows than the shape has
    ((3,), ()),  # few enough for a smaller shape
)
_TRIAL_STEPS = 2  # after each of these


@torch.inference_mode()
def logits_agree(decoder: Decoder, graphed: GraphedDecoder, device: torch.device) -> bool:
    """Whether both compute the same logits for random prompts that join and leave a batch."""
    generator = torch.Generator(device="cpu").manual_seed(0)
    cache: Any = None
    rows: Any = None
    logits = torch.empty(0, decoder.vocab_size, device=device)
    for kept, lengths in _TRIAL:
        if kept:
            cache.select_rows(kept)
            rows.select_rows(kept)
            logits = logits[list(kept)]
        if lengths:
            shape = (len(lengths), max(lengths))
            embedded = decoder.embed(torch.randint(decoder.vocab_size, shape, generator=generator).to(device))
            prompts = embedded, torch.tensor(lengths, device=device)
            _, rows = graphed.prefill(*prompts, rows)
            new_logits, cache = decoder.prefill(*prompts, cache)
            logits = torch.cat([logits, new_logits])
        for _ in range(_TRIAL_STEPS):
            tokens = logits.argmax(dim=-1)
            logits, replayed = decoder.decode_step(tokens, cache), graphed.decode_step(tokens, rows)
            if not bool((logits - replayed).abs().max() <= _TOLERANCE * logits.abs().max()):  # NaN does not agree
                return False
    return True
