"""Captured decode steps: where their rows are, and in which memory. The tokens they generate: test_session.py."""

from __future__ import annotations

import gc
import math
import weakref
from typing import Any

import pytest
import torch

from backend.engine.model.cuda_graphs import GraphedDecoder, GraphPlan, StaticCache, Step, plan_graphs
from backend.engine.model.decoder import Decoder
from backend.engine.model.graph_capture import captured
from backend.engine.model.kv_cache import KVCache

pytestmark = pytest.mark.slow

PLAN = GraphPlan(rows=6, capacities=(8, 32))


@pytest.fixture(autouse=True)
def _inference():
    with torch.inference_mode():
        yield


class Replays:
    """Stands for capture: the eager step, which counts its replays by the shape of what it returns."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def __call__(self, step: Step) -> Step:
        def replay() -> torch.Tensor:
            logits = step()
            self.rows.append(logits.shape[0])
            return logits

        return replay


@pytest.fixture
def replays() -> Replays:
    return Replays()


@pytest.fixture
def graphed(decoder: Decoder, replays: Replays) -> GraphedDecoder:
    made = captured(decoder, PLAN, replays)
    assert made is not None
    replays.rows.clear()
    return made


def prompts(decoder: Decoder, *lengths: int, cache: Any = None, by: Any = None) -> tuple[torch.Tensor, Any]:
    """Prefill random prompts: their logits and the cache."""
    torch.manual_seed(sum(lengths))
    tokens = torch.randint(decoder.vocab_size, (len(lengths), max(lengths)), device="cpu")
    return (by or decoder).prefill(decoder.embed(tokens.to(decoder.norm.device)), lengths, cache)


def steps(decoder: Any, cache: KVCache, logits: torch.Tensor, count: int) -> list[list[int]]:
    """The tokens of so many greedy decode steps."""
    generated = []
    for _ in range(count):
        best = logits.argmax(dim=-1)
        generated.append(best.tolist())
        logits = decoder.decode_step(best, cache)
    return generated


def test_the_plan_has_every_power_of_two_and_the_whole_batch() -> None:
    assert PLAN.shapes == [(6, 32), (6, 8), (4, 32), (4, 8), (2, 32), (2, 8), (1, 32), (1, 8)]
    assert [PLAN.shape_for(rows, 8)[0] for rows in range(1, 7)] == [1, 2, 4, 4, 6, 6]
    assert [PLAN.shape_for(1, positions)[1] for positions in (1, 8, 9, 32)] == [8, 8, 32, 32]


@pytest.mark.parametrize(
    ("rows", "chunk_s", "max_positions", "wanted"),
    [
        (8, 15, math.inf, GraphPlan(8, (512, 1024))),
        (64, 30, math.inf, GraphPlan(64, (768, 1536))),
        (64, 30, 64 * 1536, GraphPlan(64, (768, 1536))),
        (64, 30, 64 * 1536 - 1, GraphPlan(64, (768,))),
        (64, 30, 64 * 768 - 1, GraphPlan(32, (768,))),
        (5, 30, 3 * 768, GraphPlan(2, (768,))),
        (64, 30, 767, None),
    ],
)
def test_the_plan_follows_from_batch_passage_and_memory(
    rows: int, chunk_s: float, max_positions: float, wanted: GraphPlan | None
) -> None:
    assert plan_graphs(rows, chunk_s, max_positions) == wanted


def test_a_step_runs_the_smallest_shape_that_holds_its_rows(decoder: Decoder, graphed, replays: Replays) -> None:
    logits, cache = prompts(decoder, 4, 5, 6, by=graphed)
    steps(graphed, cache, logits, 4)
    assert replays.rows == [4, 4, 4, 4]
    cache.select_rows([2])
    graphed.decode_step(torch.tensor([1]), cache)
    assert replays.rows[4:] == [1]


def test_rows_join_leave_and_grow_without_another_result(decoder: Decoder, graphed) -> None:
    """Also past the smaller capacity, whose steps must not see the longer rows that were there before."""
    both = []
    for decoding in (decoder, graphed):
        logits, cache = prompts(decoder, 20, 3, 5, by=decoding)
        generated = steps(decoding, cache, logits, 3)
        cache.select_rows([2, 1])
        generated += steps(decoding, cache, logits[[2, 1]], 1)
        new, cache = prompts(decoder, 4, 6, cache=cache, by=decoding)
        generated += steps(decoding, cache, torch.cat([logits[[2, 1]], new]), 12)
        both.append((generated, cache.lengths.tolist(), cache.host_lengths))
    assert both[0] == both[1]
    assert isinstance(cache, StaticCache)
    assert cache.memory is not None


@pytest.mark.parametrize("lengths", [(31, 4), (4,) * 7, (33,)])
def test_rows_that_outgrow_the_memory_go_on_in_their_own(
    decoder: Decoder, graphed, replays: Replays, lengths: tuple[int, ...]
) -> None:
    logits, cache = prompts(decoder, *lengths, by=graphed)
    wanted, plain = prompts(decoder, *lengths)
    assert steps(graphed, cache, logits, 3) == steps(decoder, plain, wanted, 3)
    assert cache.memory is None
    assert len(replays.rows) == (1 if lengths == (31, 4) else 0)
    cache.select_rows([0])
    assert cache.lengths.tolist() == [lengths[0] + 3]
    cache = prompts(decoder, 5, by=graphed)[1]  # the memory is free
    assert cache.memory is not None


def test_without_memory_for_more_the_rows_stay_where_they_are(monkeypatch, decoder: Decoder, graphed) -> None:
    def refused(*_: Any) -> torch.Tensor:
        raise MemoryError

    logits, cache = prompts(decoder, 5, 6, by=graphed)
    with monkeypatch.context() as patch:
        patch.setattr(KVCache, "_allocate", refused)
        with pytest.raises(MemoryError):
            prompts(decoder, 40, cache=cache, by=graphed)
    wanted, plain = prompts(decoder, 5, 6)
    assert steps(graphed, cache, logits, 3) == steps(decoder, plain, wanted, 3)


def test_a_second_session_does_not_touch_the_rows_of_the_first(decoder: Decoder, graphed) -> None:
    logits, first = prompts(decoder, 5, 6, by=graphed)
    other, second = prompts(decoder, 7, by=graphed)
    assert not isinstance(second, StaticCache)
    assert steps(graphed, second, other, 3) == steps(decoder, prompts(decoder, 7)[1], other, 3)
    assert steps(graphed, first, logits, 3) == steps(decoder, prompts(decoder, 5, 6)[1], logits, 3)
    del first
    assert isinstance(prompts(decoder, 5, by=graphed)[1], StaticCache)


def test_nan_values_do_not_outlive_their_session(decoder: Decoder, graphed) -> None:
    _, cache = prompts(decoder, 20, 20, by=graphed)
    cache.kv.mul_(torch.nan)
    assert graphed.decode_step(torch.tensor([1, 1]), cache).isnan().all()
    del cache
    logits, cache = prompts(decoder, 5, 6, by=graphed)
    assert steps(graphed, cache, logits, 3) == steps(decoder, prompts(decoder, 5, 6)[1], logits, 3)


def test_a_step_takes_one_token_for_each_row(decoder: Decoder, graphed) -> None:
    _, cache = prompts(decoder, 5, 6, by=graphed)
    with pytest.raises(ValueError, match="one token"):
        graphed.decode_step(torch.tensor([1]), cache)


@pytest.mark.parametrize("static", [False, True])
def test_an_endless_session_needs_no_more_memory_than_its_rows(decoder: Decoder, graphed, static: bool) -> None:
    """Rows join and leave for 700 steps; none is longer than 30."""
    decoding: Any = graphed if static else decoder
    _, cache = prompts(decoder, 10, 10, by=decoding)
    for _ in range(35):
        for _ in range(20):
            decoding.decode_step(torch.tensor([1, 2]), cache)
        for _ in range(2):
            cache.select_rows([1])
            _, cache = prompts(decoder, 10, cache=cache, by=decoding)
    assert max(cache.host_lengths) <= 30
    assert cache.kv.shape[4] <= 32
    assert isinstance(cache, StaticCache) is static


def test_dropped_graphs_do_not_keep_the_weights(decoder: Decoder) -> None:
    graphed = captured(decoder, PLAN, lambda step: step)
    assert graphed is not None
    _, cache = prompts(decoder, 5, by=graphed)
    graphed.decode_step(torch.tensor([1]), cache)
    gone = weakref.ref(graphed)
    gc.disable()
    try:
        del graphed
        assert gone() is None
    finally:
        gc.enable()
