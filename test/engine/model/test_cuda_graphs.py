"""Recorded steps: where their rows are, and in which memory. What they say: test_session.py."""

from __future__ import annotations

import gc
import logging
import weakref
from typing import Any

import pytest
import torch

from backend.engine.model.cuda_graphs import GraphedDecoder, Rows, Run
from backend.engine.model.decoder import Decoder
from backend.engine.model.graph_capture import CudaGraphs, or_plain


def rerun(run: Run) -> Run:
    """The function itself for a recording: enough where only the memory around it matters."""
    return run


@pytest.fixture(autouse=True)
def _inference():
    with torch.inference_mode():
        yield


def prompts(decoder: Decoder, *lengths: int, beside: Any = None, reader: Any = None) -> tuple[torch.Tensor, Any]:
    """Logits and keys of prompts of noise."""
    torch.manual_seed(len(lengths))
    tokens = torch.randint(decoder.vocabulary, (len(lengths), max(lengths)))
    device = decoder.norm.device
    return (reader or decoder).prefill(decoder.embed(tokens.to(device)), torch.tensor(lengths, device=device), beside)


def steps(decoder: Any, rows: Any, logits: torch.Tensor, count: int) -> list[list[int]]:
    """The best tokens of so many steps."""
    said = []
    for _ in range(count):
        said.append(logits.argmax(dim=-1).tolist())
        logits = decoder.decode_step(torch.tensor(said[-1], device=logits.device), rows)
    return said


def test_a_row_that_leaves_is_dead_until_most_are(decoder: Decoder) -> None:
    graph = GraphedDecoder(decoder, rerun)
    logits, cache = prompts(decoder, *range(4, 13))
    rows: Rows = graph.joined(None, cache)
    assert (rows.layout.rows, rows.layout.slots) == (16, 256)
    rows.keep([8, 3, 1, 0, 2])
    first = rows.layout
    steps(graph, rows, logits[[8, 3, 1, 0, 2]], 2)
    assert rows.layout is first
    assert rows.layout.alive.tolist() == [1, 1, 1, 1, 0, 0, 0, 0, 1, *[0] * 7]
    assert rows.layout.lengths.tolist() == [6, 7, 8, 9, 0, 0, 0, 0, 14, *[0] * 7]
    rows.keep([1, 0])
    steps(graph, rows, logits[[3, 8]], 1)
    assert rows.layout.rows == 2
    assert rows.layout.lengths.tolist() == [10, 15]


def test_who_joins_takes_the_dead_rows_places(decoder: Decoder) -> None:
    graph = GraphedDecoder(decoder, rerun)
    rows: Rows = graph.joined(None, prompts(decoder, 4, 5, 6, 7)[1])
    rows.keep([3, 0])
    layout = rows.layout
    assert graph.joined(rows, prompts(decoder, 9, 8)[1]) is rows
    assert rows.layout is layout
    assert rows.places == [3, 0, 1, 2]
    assert layout.lengths.tolist() == [4, 9, 8, 7]
    assert (layout.tensor[:, :, 1, :, 9:] == 0).all()  # what stood there before is gone


def test_more_slots_are_laid_out_when_the_longest_row_needs_them(decoder: Decoder) -> None:
    logits, cache = prompts(decoder, 254, 3)
    graph = GraphedDecoder(decoder, rerun)
    rows = graph.joined(None, cache)
    said = steps(graph, rows, logits, 6)
    assert rows.layout.slots == 512
    assert max(rows.bounds) == 260
    assert said == steps(decoder, cache, logits, 6)


def test_each_size_is_recorded_once(decoder: Decoder) -> None:
    records = []
    graph = GraphedDecoder(decoder, lambda run: records.append(run) or run)  # type: ignore[func-returns-value]
    for count in (4, 3, 1, 2, 4, 1):
        logits, cache = prompts(decoder, *[5] * count)
        steps(graph, graph.joined(None, cache), logits, 1)
    assert len(records) == 3  # four rows, one, two
    steps(graph, graph.joined(None, prompts(decoder, *[5] * 8)[1]), torch.zeros(8, 9), 1)
    steps(graph, graph.joined(None, prompts(decoder, 5)[1]), torch.zeros(1, 9), 1)
    assert len(records) == 5  # more memory is other memory


def test_with_memory_for_the_largest_batch_no_size_is_recorded_twice(monkeypatch, decoder: Decoder) -> None:
    monkeypatch.setattr("backend.engine.model.cuda_graphs._KEPT", 0)
    records = []
    graph = GraphedDecoder(decoder, lambda run: records.append(run) or run, rows=7, positions=300)  # type: ignore[func-returns-value]
    for _ in range(3):
        for count, length in ((1, 5), (3, 5), (7, 300), (2, 5)):
            logits, cache = prompts(decoder, *[length] * count)
            steps(graph, graph.joined(None, cache), logits, 1)
    assert len(records) == 4
    assert graph._block.numel() == 8 * 512 * cache.tensor[:, :, 0, :, 0].numel()


def test_with_little_memory_there_is_no_more_than_is_needed(monkeypatch, decoder: Decoder) -> None:
    graph = GraphedDecoder(decoder, rerun, rows=8, positions=5)
    logits, cache = prompts(decoder, 5)
    usual = 8 * 256 * cache.tensor[:, :, 0, :, 0].numel()
    for free, wanted in ((2 * usual * 4 - 1, usual // 8), (2 * usual * 4, usual)):
        monkeypatch.setattr("backend.engine.model.cuda_graphs.free_bytes", lambda device, free=free: free)
        graph.forget()
        rows = graph.joined(None, cache)
        assert graph._block.numel() == wanted
    assert steps(graph, rows, logits, 2) == steps(decoder, cache, logits, 2)


def test_a_new_session_takes_the_memory_over(decoder: Decoder) -> None:
    graph = GraphedDecoder(decoder, rerun)
    logits, cache = prompts(decoder, 5)
    old = graph.joined(None, cache)
    new = graph.joined(None, cache)
    with pytest.raises(RuntimeError, match="another"):
        graph.decode_step(torch.tensor([1]), old)
    with pytest.raises(RuntimeError, match="another"):
        graph.joined(old, cache)
    assert steps(graph, new, logits, 3) == steps(decoder, cache, logits, 3)


def test_numbers_that_are_none_do_not_outlive_their_session(decoder: Decoder) -> None:
    graph = GraphedDecoder(decoder, rerun)
    logits, cache = prompts(decoder, 200, 200)
    cache.tensor.mul_(torch.nan)
    assert graph.decode_step(torch.tensor([1, 1]), graph.joined(None, cache)).isnan().all()
    logits, cache = prompts(decoder, 5, 6)
    assert steps(graph, graph.joined(None, cache), logits, 3) == steps(decoder, cache, logits, 3)


def test_without_memory_for_newcomers_who_was_there_goes_on(decoder: Decoder) -> None:
    def record(run: Run) -> Run:
        if faults:
            raise faults.pop()
        return run

    faults: list[Exception] = []
    graph = GraphedDecoder(decoder, record)
    logits, cache = prompts(decoder, 5)
    rows = graph.joined(None, cache)
    faults.append(MemoryError())
    with pytest.raises(MemoryError):
        graph.joined(rows, cache)
    assert steps(graph, rows, logits, 3) == steps(decoder, cache, logits, 3)


def test_without_any_memory_the_session_fails_and_the_next_one_works(decoder: Decoder) -> None:
    def record(run: Run) -> Run:
        if graph._block.numel() > least:
            raise MemoryError
        return run

    least = 10**9
    graph = GraphedDecoder(decoder, record)
    logits, cache = prompts(decoder, 5)
    rows = graph.joined(None, cache)
    least = 0
    with pytest.raises(MemoryError):
        graph.joined(rows, cache)
    with pytest.raises(RuntimeError):  # its rows are lost
        graph.decode_step(torch.tensor([1]), rows)
    assert graph._block.numel() == 0
    least = 10**9
    assert steps(graph, graph.joined(None, cache), logits, 2) == steps(decoder, cache, logits, 2)


def test_who_needs_more_memory_has_given_back_what_he_had(decoder: Decoder) -> None:
    def record(run: Run) -> Run:
        assert had() is None
        return run

    graph = GraphedDecoder(decoder, rerun)
    logits, cache = prompts(decoder, 5)
    rows = graph.joined(None, cache)
    had = weakref.ref(rows.layout.tensor)
    graph.record = record
    rows = graph.joined(rows, cache)
    _, both = prompts(decoder, 5, beside=prompts(decoder, 5)[1])
    assert steps(graph, rows, logits.repeat(2, 1), 2) == steps(decoder, both, logits.repeat(2, 1), 2)


def test_a_failure_holds_no_memory(decoder: Decoder) -> None:
    """What a failed recording would have used is free before the rows that were there are laid out again."""

    def record(run: Run) -> Run:
        if not failed:
            failed.append(weakref.ref(run))  # which holds the block, as do the frames that it stands in
            raise MemoryError
        assert failed[0]() is None
        return run

    failed: list[weakref.ref[Run]] = []
    graph = GraphedDecoder(decoder, rerun)
    _, cache = prompts(decoder, 5)
    rows = graph.joined(None, cache)
    graph.record = record
    with pytest.raises(MemoryError):
        graph.joined(rows, cache)
    assert len(failed) == 1
    graph.decode_step(torch.tensor([1]), rows)


def test_a_large_block_is_given_back_when_little_is_needed(monkeypatch, decoder: Decoder) -> None:
    graph = GraphedDecoder(decoder, rerun)
    _, cache = prompts(decoder, 5)
    graph.joined(None, prompts(decoder, *[5] * 8)[1])
    large = graph._block.nbytes
    graph.joined(None, cache)
    assert graph._block.nbytes == large
    monkeypatch.setattr("backend.engine.model.cuda_graphs._KEPT", large // 2)
    graph.joined(None, cache)
    assert graph._block.nbytes == large // 8


@pytest.mark.parametrize("recording", [False, True])
def test_a_session_that_never_ends_needs_no_more_room_than_its_rows(decoder: Decoder, recording: bool) -> None:
    """Rows come and go for 700 steps; none is longer than 30."""
    decoding: Any = GraphedDecoder(decoder, rerun) if recording else decoder
    _, rows = prompts(decoder, 10, 10, reader=decoding)
    for _ in range(35):
        for _ in range(20):
            decoding.decode_step(torch.tensor([1, 2]), rows)
        for _ in range(2):
            rows.keep([1])
            _, rows = prompts(decoder, 10, beside=rows, reader=decoding)
    assert max(rows.bounds) <= 30
    assert (rows.layout if recording else rows).tensor.shape[4] <= (256 if recording else 32)


def test_nothing_keeps_the_weights_when_the_recordings_go(decoder: Decoder) -> None:
    graph = GraphedDecoder(decoder, rerun)
    rows = graph.joined(None, prompts(decoder, 5)[1])
    graph.decode_step(torch.tensor([1]), rows)
    gone = weakref.ref(graph)
    gc.disable()
    try:
        del graph
        assert gone() is None
    finally:
        gc.enable()


def test_a_size_that_cannot_be_recorded_later_is_run_as_it_is(decoder: Decoder, caplog) -> None:
    def refusing(run: Run) -> Run:
        raise fault

    graph = GraphedDecoder(decoder, or_plain(refusing))
    logits, cache = prompts(decoder, 5, 6)
    fault: Exception = MemoryError()
    with pytest.raises(MemoryError):
        graph.joined(None, cache)
    fault = RuntimeError("operation not permitted when stream is capturing")
    with caplog.at_level(logging.WARNING):
        assert steps(graph, graph.joined(None, cache), logits, 3) == steps(decoder, cache, logits, 3)
        steps(graph, graph.joined(None, prompts(decoder, 5)[1]), logits[:1], 1)
    assert caplog.text.count("cannot be recorded") == 1  # nor is it tried again


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_a_gpu_recordings_are_made_anew_in_other_memory(recognizer, caplog) -> None:
    decoder = recognizer.decoder
    graph = GraphedDecoder(decoder, or_plain(CudaGraphs(recognizer.model.device)))
    with caplog.at_level(logging.WARNING):
        for count in (1, 8, 1, 3, 16):
            logits, cache = prompts(decoder, *[5] * count)
            assert steps(graph, graph.joined(None, cache), logits, 4) == steps(decoder, cache, logits, 4)
            graph.forget()
    assert not caplog.records
