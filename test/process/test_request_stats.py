from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from functools import partial

import pytest

from backend.errors import EngineFailure
from backend.process.request_stats import STAGES, RequestStats, Totals
from backend.serving.one_shot import OneShotSession
from backend.serving.scheduler import Scheduler
from backend.serving.session_kind import SessionKind


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stats(clock: Clock) -> RequestStats:
    return RequestStats(clock=clock)


def test_a_stage_excludes_the_time_in_which_every_passage_waited(stats: RequestStats, clock: Clock) -> None:
    with stats.measure("infer"):
        clock.now += 3
        stats.passage_started(waiting_since=100.5)
        clock.now += 5
        stats.passage_ended()
    assert stats.stage_s == {"decode": 0, "vad": 0, "queue": 2.5, "infer": 5.5, "align": 0}


def test_overlapping_waits_count_once_and_not_while_a_passage_runs(stats: RequestStats, clock: Clock) -> None:
    clock.now += 1
    stats.passage_started(waiting_since=100)
    stats.passage_started(waiting_since=100)  # waited for the same second
    clock.now += 10
    stats.passage_ended()
    stats.passage_started(waiting_since=101)  # waited while the first ran
    stats.passage_ended()
    stats.passage_ended()
    clock.now += 4
    stats.passage_started(waiting_since=105)  # while others ran, too, but then for 4 s while nothing did
    assert stats.stage_s["queue"] == 5


def test_a_passage_that_is_cancelled_while_it_waits_has_waited(stats: RequestStats, clock: Clock) -> None:
    with stats.measure("infer"):
        clock.now += 7
        stats.record_wait(since=100)
        stats.record_wait(since=102)
    assert (stats.stage_s["queue"], stats.stage_s["infer"]) == (7, 0)


def test_a_stage_that_fails_is_measured_too(stats: RequestStats, clock: Clock) -> None:
    def fail() -> None:
        with stats.measure("align"):
            clock.now += 2
            raise EngineFailure

    with pytest.raises(EngineFailure):
        fail()
    assert stats.stage_s["align"] == 2


def test_totals_add_up() -> None:
    totals = Totals()
    for finish, code in (("ok", "OK"), ("Overloaded", "RESOURCE_EXHAUSTED"), ("Cancelled", "CANCELLED")):
        stats = RequestStats(method="AudioTranscription", audio_s=8.0)
        totals.call_started(stats)
        assert totals.in_flight == {"AudioTranscription": 1}
        stats.finish, stats.code = finish, code
        stats.stage_s["decode"] = 0.5
        totals.call_ended(stats)
    assert sum(totals.requests.values()) == 3
    assert totals.in_flight == {"AudioTranscription": 0}
    assert totals.rejections == {"Overloaded": 1}  # a client's cancellation is no rejection
    assert totals.audio_s == 8.0
    assert totals.stage_s == dict.fromkeys(STAGES, 0.0) | {"decode": 1.5}


class Model:
    def __init__(self) -> None:
        self.gate, self.entered = threading.Event(), threading.Event()
        self.faults: dict[int, Exception] = {}

    def double(self, items: Sequence[int]) -> list[int]:
        self.entered.set()
        assert self.gate.wait(20)
        for item in items:
            if item in self.faults:
                raise self.faults[item]
        return [2 * item for item in items]


async def together(scheduler: Scheduler, model: Model, owners: list[RequestStats], **fields) -> list:
    """The first item holds the model at a closed gate; those of `owners` wait for it and then run together."""
    kind = SessionKind("double", model, partial(OneShotSession, model.double), max_batch=8)
    first = asyncio.ensure_future(scheduler.submit(kind, 0, audio_s=5))
    await asyncio.to_thread(model.entered.wait, 20)
    rest = [
        asyncio.ensure_future(scheduler.submit(kind, n, audio_s=5, owner=owner)) for n, owner in enumerate(owners, 1)
    ]
    await asyncio.sleep(0)
    assert scheduler.waiting == (len(owners), 5.0 * len(owners))
    model.gate.set()
    await first
    return await asyncio.gather(*rest, return_exceptions=True)


async def test_the_scheduler_records_waits_and_batch_sizes(scheduler: Scheduler) -> None:
    one, other = RequestStats(), RequestStats()
    assert await together(scheduler, Model(), [one, one, other]) == [2, 4, 6]
    assert (one.batch_rows, other.batch_rows) == (3, 3)
    assert one.stage_s["queue"] > 0
    assert other.stage_s["queue"] > 0
    assert dict(scheduler.engine_stats.steps) == {1: 1, 3: 1}
    assert scheduler.engine_stats.compute_s > 0
    assert (scheduler.engine_stats.oom_events, scheduler.engine_stats.retries) == (0, 0)
    assert scheduler.waiting == (0, 0)


async def test_the_scheduler_counts_retries_and_out_of_memory_events(scheduler: Scheduler) -> None:
    model = Model()
    model.faults = {2: MemoryError()}
    results = await together(scheduler, model, [RequestStats() for _ in range(3)])
    assert (results[0], results[2]) == (2, 6)
    assert (scheduler.engine_stats.oom_events, scheduler.engine_stats.retries) == (1, 3)


async def test_a_trace_names_the_requests_that_failed(scheduler: Scheduler, caplog) -> None:
    model = Model()
    model.faults = {1: RuntimeError("device lost")}
    await together(scheduler, model, [RequestStats("first"), RequestStats("second")])
    traces = [record.getMessage() for record in caplog.records if record.exc_info]
    assert traces == ["the model failed [request first, second]", "the model failed [request first]"]
