"""Captures decode steps as CUDA graphs at the end of a load, and decides whether a model uses them.

Captured steps are used only where each of them computed what the eager step computes. Where one differs or cannot be
captured, steps run eagerly and the log says so. Whatever can fail fails here, before the first request.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping

import torch

from backend.engine.model.cuda_graphs import Capture, GraphedDecoder, GraphPlan, StaticMemory, Step, plan_graphs
from backend.engine.model.decoder import Decoder
from backend.engine.ops.device import CAPTURE_LOCK, free_bytes

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


_TOLERANCE = 0.05  # of the largest logit: 16 bits, and a library may choose other kernels while it is captured
_MAX_MEMORY_SHARE = 0.5  # of the free memory, for the static block: the aligner and prefills need some, too


def with_cuda_graphs(decoder: Decoder, device: torch.device, rows: int, chunk_s: float) -> Decoder | GraphedDecoder:
    """The decoder with captured steps for batches of `rows` passages of `chunk_s` seconds; else the decoder.

    Else: where `device` is not CUDA, has too little memory, cannot capture, or computes something else in a replay.
    """
    if device.type != "cuda":
        return decoder
    try:
        max_bytes = _MAX_MEMORY_SHARE * free_bytes(device)
        plan = plan_graphs(rows, chunk_s, max_bytes / decoder.new_cache().position_bytes)
        if plan is None:
            _log.warning("too little memory for CUDA graphs; decoding with eager steps")
            return decoder
        graphed = captured(decoder, plan, CudaGraphs(device))
        if graphed is not None:
            _log.info("decode steps are captured as CUDA graphs, %d rows, capacities %s", plan.rows, plan.capacities)
            return graphed
        _log.warning("CUDA graphs do not compute what eager steps compute; decoding with eager steps")
    except Exception:  # noqa: BLE001 - foreign code: drivers raise anything, and eager steps need none of it
        _log.warning("decode steps cannot be captured as CUDA graphs; decoding with eager steps", exc_info=True)
    return decoder


@torch.inference_mode()
def captured(decoder: Decoder, plan: GraphPlan, capture: Capture) -> GraphedDecoder | None:
    """The decoder with a captured step for every shape of the plan; None where one computes something else."""
    memory = StaticMemory(decoder.new_cache().kv, plan)
    graphs = {shape: capture(memory.step(decoder, *shape)) for shape in plan.shapes}
    return GraphedDecoder(decoder, memory, graphs) if _replays_agree(decoder, memory, graphs) else None


def _replays_agree(decoder: Decoder, memory: StaticMemory, graphs: Mapping[tuple[int, int], Step]) -> bool:
    """Whether each graph computes the logits of its eager step, for rows of many lengths with random keys and values.

    Leaves the memory as it was made: without rows, all zeros.
    """
    memory.kv.normal_()
    try:
        for (rows, capacity), replay in graphs.items():
            memory.lengths[:rows] = torch.linspace(capacity - 1, 0, rows).long()
            memory.tokens[:rows] = torch.arange(rows) % decoder.vocab_size
            eager = memory.step(decoder, rows, capacity)()
            if not bool((eager - replay()).abs().max() <= _TOLERANCE * eager.abs().max()):  # NaN does not agree
                return False
        return True
    finally:
        memory.kv.zero_()
        memory.lengths.zero_()
