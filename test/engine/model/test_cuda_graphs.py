"""Captured decode steps: where their rows are, and in which memory. The tokens they generate: test_session.py."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch

from backend.engine.model.cuda_graphs import GraphedDecoder, GraphedRows, Step
from backend.engine.model.decoder import Decoder
from backend.engine.model.graph_capture import CudaGraphs, or_eager

pytestmark = pytest.mark.slow


def eager(step: Step) -> Step:
    """The step itself in place of its capture: enough where only the memory around it matters."""
    return step


def recording(captured: list[Step]) -> Callable[[Step], Step]:
    """Like `eager`, and appends each step to `captured`."""

    def capture(step: Step) -> Step:
        captured.append(step)
        return step

    return capture


@pytest.fixture(autouse=True)
def _inference():
    with torch.inference_mode():
        yield


def prompts(decoder: Decoder, *lengths: int, cache: Any = None, by: Any = None) -> tuple[torch.Tensor, Any]:
    """Prefill random prompts: their logits and the cache."""
    torch.manual_seed(len(lengths))
    tokens = torch.randint(decoder.vocab_size, (len(lengths), max(lengths)))
    device = decoder.norm.device
    return (by or decoder).prefill(decoder.embed(tokens.to(device)), torch.tensor(lengths, device=device), cache)


def steps(decoder: Any, rows: Any, logits: torch.Tensor, count: int) -> list[list[int]]:
    """The tokens of so many greedy decode steps."""
    generated = []
    for _ in range(count):
        generated.append(logits.argmax(dim=-1).tolist())
        logits = decoder.decode_step(torch.tensor(generated[-1], device=logits.device), rows)
    return generated


def test_a_removed_row_stays_inactive_until_three_quarters_are(decoder: Decoder) -> None:
    graph = GraphedDecoder(decoder, eager)
    logits, cache = prompts(decoder, *range(4, 13))
    rows: GraphedRows = graph.join(None, cache)
    assert (rows.batch.rows, rows.batch.capacity) == (16, 256)
    rows.select_rows([8, 3, 1, 0, 2])
    first = rows.batch
    steps(graph, rows, logits[[8, 3, 1, 0, 2]], 2)
    assert rows.batch is first
    assert rows.batch.active.tolist() == [1, 1, 1, 1, 0, 0, 0, 0, 1, *[0] * 7]
    assert rows.batch.lengths.tolist() == [6, 7, 8, 9, 0, 0, 0, 0, 14, *[0] * 7]
    rows.select_rows([1, 0])
    steps(graph, rows, logits[[3, 8]], 1)
    assert rows.batch.rows == 2
    assert rows.batch.lengths.tolist() == [10, 15]


def test_new_rows_take_the_place_of_inactive_ones(decoder: Decoder) -> None:
    graph = GraphedDecoder(decoder, eager)
    rows: GraphedRows = graph.join(None, prompts(decoder, 4, 5, 6, 7)[1])
    rows.select_rows([3, 0])
    batch = rows.batch
    assert graph.join(rows, prompts(decoder, 9, 8)[1]) is rows
    assert rows.batch is batch
    assert rows.indices == [3, 0, 1, 2]
    assert batch.lengths.tolist() == [4, 9, 8, 7]
    assert (batch.kv[:, :, 1, :, 9:] == 0).all()  # the values of the row before are gone


def test_the_capacity_grows_when_the_longest_row_needs_it(decoder: Decoder) -> None:
    logits, cache = prompts(decoder, 254, 3)
    graph = GraphedDecoder(decoder, eager)
    rows = graph.join(None, cache)
    generated = steps(graph, rows, logits, 6)
    assert rows.batch.capacity == 512
    assert max(rows.max_lengths) == 260
    assert generated == steps(decoder, cache, logits, 6)


def test_each_batch_shape_is_captured_once(decoder: Decoder) -> None:
    captured: list[Step] = []
    graph = GraphedDecoder(decoder, recording(captured))
    for count in (4, 3, 1, 2, 4, 1):
        logits, cache = prompts(decoder, *[5] * count)
        steps(graph, graph.join(None, cache), logits, 1)
    assert len(captured) == 3  # four rows, one, two
    steps(graph, graph.join(None, prompts(decoder, *[5] * 8)[1]), torch.zeros(8, 9), 1)
    steps(graph, graph.join(None, prompts(decoder, 5)[1]), torch.zeros(1, 9), 1)
    assert len(captured) == 5  # a larger block has another address


def test_with_memory_for_the_largest_batch_no_shape_is_captured_twice(monkeypatch, decoder: Decoder) -> None:
    monkeypatch.setattr("backend.engine.model.cuda_graphs._KEPT_BYTES", 0)
    captured: list[Step] = []
    graph = GraphedDecoder(decoder, recording(captured), rows=7, positions=300)
    for _ in range(3):
        for count, length in ((1, 5), (3, 5), (7, 300), (2, 5)):
            logits, cache = prompts(decoder, *[length] * count)
            steps(graph, graph.join(None, cache), logits, 1)
    assert len(captured) == 4
    assert graph._block.numel() == 8 * 512 * cache.kv[:, :, 0, :, 0].numel()


def test_with_little_free_memory_no_more_is_allocated_than_needed(monkeypatch, decoder: Decoder) -> None:
    graph = GraphedDecoder(decoder, eager, rows=8, positions=5)
    logits, cache = prompts(decoder, 5)
    usual = 8 * 256 * cache.kv[:, :, 0, :, 0].numel()
    for free, wanted in ((2 * usual * 4 - 1, usual // 8), (2 * usual * 4, usual)):
        monkeypatch.setattr("backend.engine.model.cuda_graphs.free_bytes", lambda device, free=free: free)
        graph.release()
        rows = graph.join(None, cache)
        assert graph._block.numel() == wanted
    assert steps(graph, rows, logits, 2) == steps(decoder, cache, logits, 2)


def test_a_new_session_takes_the_memory_of_the_last_one(decoder: Decoder) -> None:
    graph = GraphedDecoder(decoder, eager)
    logits, cache = prompts(decoder, 5)
    old = graph.join(None, cache)
    new = graph.join(None, cache)
    with pytest.raises(RuntimeError, match="another"):
        graph.decode_step(torch.tensor([1]), old)
    with pytest.raises(RuntimeError, match="another"):
        graph.join(old, cache)
    assert steps(graph, new, logits, 3) == steps(decoder, cache, logits, 3)


def test_nan_values_do_not_outlive_their_session(decoder: Decoder) -> None:
    graph = GraphedDecoder(decoder, eager)
    logits, cache = prompts(decoder, 200, 200)
    cache.kv.mul_(torch.nan)
    assert graph.decode_step(torch.tensor([1, 1]), graph.join(None, cache)).isnan().all()
    logits, cache = prompts(decoder, 5, 6)
    assert steps(graph, graph.join(None, cache), logits, 3) == steps(decoder, cache, logits, 3)


def test_without_memory_for_new_rows_the_old_ones_go_on(decoder: Decoder) -> None:
    def capture(step: Step) -> Step:
        if faults:
            raise faults.pop()
        return step

    faults: list[Exception] = []
    graph = GraphedDecoder(decoder, capture)
    logits, cache = prompts(decoder, 5)
    rows = graph.join(None, cache)
    faults.append(MemoryError())
    with pytest.raises(MemoryError):
        graph.join(rows, cache)
    assert steps(graph, rows, logits, 3) == steps(decoder, cache, logits, 3)


def test_without_any_memory_the_session_fails_and_the_next_one_works(decoder: Decoder) -> None:
    def capture(step: Step) -> Step:
        if graph._block.numel() > least:
            raise MemoryError
        return step

    least = 10**9
    graph = GraphedDecoder(decoder, capture)
    logits, cache = prompts(decoder, 5)
    rows = graph.join(None, cache)
    least = 0
    with pytest.raises(MemoryError):
        graph.join(rows, cache)
    with pytest.raises(RuntimeError):  # its rows are lost
        graph.decode_step(torch.tensor([1]), rows)
    assert graph._block.numel() == 0
    least = 10**9
    assert steps(graph, graph.join(None, cache), logits, 2) == steps(decoder, cache, logits, 2)


def test_the_old_memory_is_freed_before_more_is_allocated(decoder: Decoder) -> None:
    def capture(step: Step) -> Step:
        assert old() is None
        return step

    graph = GraphedDecoder(decoder, eager)
    logits, cache = prompts(decoder, 5)
    rows = graph.join(None, cache)
    old = weakref.ref(rows.batch.kv)
    graph.capture = capture
    rows = graph.join(rows, cache)
    _, both = prompts(decoder, 5, cache=prompts(decoder, 5)[1])
    assert steps(graph, rows, logits.repeat(2, 1), 2) == steps(decoder, both, logits.repeat(2, 1), 2)


def test_a_failure_holds_no_memory(decoder: Decoder) -> None:
    """The memory of a failed capture is free before the old rows are copied back."""

    def capture(step: Step) -> Step:
        if not failed:
            failed.append(weakref.ref(step))  # it holds the block, as do the frames of its traceback
            raise MemoryError
        assert failed[0]() is None
        return step

    failed: list[weakref.ref[Step]] = []
    graph = GraphedDecoder(decoder, eager)
    _, cache = prompts(decoder, 5)
    rows = graph.join(None, cache)
    graph.capture = capture
    with pytest.raises(MemoryError):
        graph.join(rows, cache)
    assert len(failed) == 1
    graph.decode_step(torch.tensor([1]), rows)


def test_a_large_block_is_given_back_when_little_is_needed(monkeypatch, decoder: Decoder) -> None:
    graph = GraphedDecoder(decoder, eager)
    _, cache = prompts(decoder, 5)
    graph.join(None, prompts(decoder, *[5] * 8)[1])
    large = graph._block.nbytes
    graph.join(None, cache)
    assert graph._block.nbytes == large
    monkeypatch.setattr("backend.engine.model.cuda_graphs._KEPT_BYTES", large // 2)
    graph.join(None, cache)
    assert graph._block.nbytes == large // 8


@pytest.mark.parametrize("captured", [False, True])
def test_an_endless_session_needs_no_more_memory_than_its_rows(decoder: Decoder, captured: bool) -> None:
    """Rows join and leave for 700 steps; none is longer than 30."""
    decoding: Any = GraphedDecoder(decoder, eager) if captured else decoder
    _, rows = prompts(decoder, 10, 10, by=decoding)
    for _ in range(35):
        for _ in range(20):
            decoding.decode_step(torch.tensor([1, 2]), rows)
        for _ in range(2):
            rows.select_rows([1])
            _, rows = prompts(decoder, 10, cache=rows, by=decoding)
    assert max(rows.max_lengths) <= 30
    assert (rows.batch if captured else rows).kv.shape[4] <= (256 if captured else 32)


def test_dropped_graphs_do_not_keep_the_weights(decoder: Decoder) -> None:
    graph = GraphedDecoder(decoder, eager)
    rows = graph.join(None, prompts(decoder, 5)[1])
    graph.decode_step(torch.tensor([1]), rows)
    gone = weakref.ref(graph)
    gc.disable()
    try:
        del graph
        assert gone() is None
    finally:
        gc.enable()


def test_a_shape_that_cannot_be_captured_later_runs_eagerly(decoder: Decoder, caplog) -> None:
    def refusing(step: Step) -> Step:
        raise fault

    graph = GraphedDecoder(decoder, or_eager(refusing))
    logits, cache = prompts(decoder, 5, 6)
    fault: Exception = MemoryError()
    with pytest.raises(MemoryError):
        graph.join(None, cache)
    fault = RuntimeError("operation not permitted when stream is capturing")
    with caplog.at_level(logging.WARNING):
        assert steps(graph, graph.join(None, cache), logits, 3) == steps(decoder, cache, logits, 3)
        steps(graph, graph.join(None, prompts(decoder, 5)[1]), logits[:1], 1)
    assert caplog.text.count("cannot be captured") == 1  # it is not tried again


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_a_gpu_steps_are_captured_again_in_new_memory(recognizer, caplog) -> None:
    decoder = recognizer.decoder
    graph = GraphedDecoder(decoder, or_eager(CudaGraphs(recognizer.model.device)))
    with caplog.at_level(logging.WARNING):
        for count in (1, 8, 1, 3, 16):
            logits, cache = prompts(decoder, *[5] * count)
            assert steps(graph, graph.join(None, cache), logits, 4) == steps(decoder, cache, logits, 4)
            graph.release()
    assert not caplog.records
