"""A job's fault is its own, and every job is answered: the scheduler with sessions that fail as planned."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from backend.errors import AsrError, EngineFailure, OutOfMemory
from backend.options.load_options import LoadOptions
from backend.serving.resident import Resident
from backend.serving.scheduler import Scheduler
from backend.serving.session_kind import SessionKind

OUT_OF_MEMORY = MemoryError()


@dataclass(eq=False)
class Model:
    """Its sessions answer `-item` after two steps, and raise what `faults` has for an event: once, or always.

    A step waits at the gate, which `let_pass` opens for a number of steps; `at_step` is set when a step starts.
    """

    faults: dict[str, Exception] = field(default_factory=dict)
    always: bool = False
    failures: dict[int, AsrError] = field(default_factory=dict)  # of single items, in place of their results
    gate: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    at_step: threading.Event = field(default_factory=threading.Event)
    together: list[list[int]] = field(default_factory=list)

    def session(self) -> Rows:
        self.happen("session")
        return Rows(self)

    def let_pass(self, steps: int = 1000) -> None:
        self.gate.release(steps)

    def happen(self, event: str) -> None:
        fault = self.faults.get(event) if self.always else self.faults.pop(event, None)
        if fault:
            raise fault


@dataclass(eq=False)
class Rows:
    model: Model
    left: dict[int, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.left)

    def add(self, items: Sequence[int]) -> None:
        for item in items:
            self.model.happen(f"add {item}")
        self.left |= dict.fromkeys(items, 2)

    def step(self) -> list[tuple[int, int | AsrError]]:
        self.model.together.append(sorted(self.left))
        self.model.at_step.set()
        assert self.model.gate.acquire(timeout=20)
        for item in self.left:
            self.model.happen(f"step {item}")
        self.left = {item: steps - 1 for item, steps in self.left.items()}
        ended = [item for item, steps in self.left.items() if not steps]
        for item in ended:
            del self.left[item]
        return [(item, self.model.failures.get(item, -item)) for item in ended]

    def drop(self, item: int) -> None:
        self.model.happen(f"drop {item}")
        del self.left[item]


def submitted(scheduler: Scheduler, model: Model, item: int, batch_wait_s: float = 0.0) -> asyncio.Future[int]:
    kind = SessionKind("negate", model, model.session, max_batch=8, batch_wait_s=batch_wait_s)
    return asyncio.ensure_future(scheduler.submit(kind, item, audio_s=5))


async def submitted_while_one_runs(scheduler: Scheduler, model: Model, *items: int) -> list[asyncio.Future[int]]:
    """Item 1 runs and waits in its first step; the others are submitted meanwhile."""
    first = submitted(scheduler, model, 1)
    assert await asyncio.to_thread(model.at_step.wait, 20)
    others = [submitted(scheduler, model, item) for item in items]
    await asyncio.sleep(0)
    return [first, *others]


async def test_a_session_that_cannot_be_opened_fails_its_jobs_and_not_the_thread(scheduler: Scheduler) -> None:
    model = Model({"session": ValueError()}, always=True)
    model.let_pass()
    with pytest.raises(EngineFailure):
        await submitted(scheduler, model, 1)
    model.always = False
    assert await submitted(scheduler, model, 2) == -2  # the first try fails, the second does not


async def test_a_row_that_cannot_be_dropped_costs_the_others_nothing(scheduler: Scheduler) -> None:
    model = Model({"drop 2": ValueError()})
    first, second, third = await submitted_while_one_runs(scheduler, model, 2, 3)
    model.at_step.clear()
    model.let_pass()
    while [1, 2, 3] not in model.together:
        await asyncio.sleep(0)
    second.cancel()
    assert await asyncio.gather(first, third) == [-1, -3]
    assert await submitted(scheduler, model, 4) == -4


async def test_an_item_that_ends_with_an_error_is_not_tried_again_and_costs_the_others_nothing(
    scheduler: Scheduler,
) -> None:
    model = Model(failures={2: EngineFailure("this one")})
    first, second, third = await submitted_while_one_runs(scheduler, model, 2, 3)
    model.let_pass()
    assert await asyncio.gather(first, third) == [-1, -3]
    with pytest.raises(EngineFailure, match="this one"):
        await second
    assert scheduler.engine_stats.retries == 0
    assert sum(2 in together for together in model.together) == 2  # its two steps, once


@pytest.mark.parametrize("others", [[2], [2, 3]])
async def test_a_job_without_memory_beside_others_is_retried_alone_when_they_have_ended(
    scheduler: Scheduler, others: list[int]
) -> None:
    model = Model({"add 2": OUT_OF_MEMORY})
    waiting = await submitted_while_one_runs(scheduler, model, *others)
    model.let_pass()
    assert await asyncio.gather(*waiting) == [-1, *(-item for item in others)]
    assert model.together == [[item] for item in (1, *others) for _ in range(2)]
    assert scheduler.engine_stats.oom_events == 1
    assert scheduler.engine_stats.retries == len(others)


async def test_a_job_that_ran_out_of_memory_alone_is_retried(scheduler: Scheduler, caplog) -> None:
    model = Model({"step 1": OUT_OF_MEMORY})
    model.let_pass()
    assert await submitted(scheduler, model, 1) == -1
    assert scheduler.engine_stats.oom_events == 0  # one alone is no batch that is too large
    assert scheduler.engine_stats.retries == 0
    assert "one that ran alone failed" in caplog.text


async def test_a_job_without_memory_even_alone_fails_as_out_of_memory(scheduler: Scheduler) -> None:
    model = Model({"add 2": OUT_OF_MEMORY}, always=True)
    first, second = await submitted_while_one_runs(scheduler, model, 2)
    model.let_pass()
    assert await first == -1
    with pytest.raises(OutOfMemory):
        await second


async def test_a_job_that_is_cancelled_before_its_retry_does_not_run_again(scheduler: Scheduler) -> None:
    model = Model({"add 2": OUT_OF_MEMORY})
    first, second = await submitted_while_one_runs(scheduler, model, 2)
    model.let_pass(1)
    while not scheduler.engine_stats.retries:
        await asyncio.sleep(0.001)
    second.cancel()
    await asyncio.sleep(0)
    model.let_pass()
    assert await first == -1
    while scheduler.busy:
        await asyncio.sleep(0.001)
    assert not any(2 in rows for rows in model.together)


@pytest.mark.parametrize(
    "fault",
    [
        type("AcceleratorError", (RuntimeError,), {})("CUDA error: an illegal memory access was encountered"),
        RuntimeError("HIP error: unspecified launch failure"),
    ],
)
async def test_a_lost_device_makes_the_engine_dead(scheduler: Scheduler, fault: Exception) -> None:
    model = Model({"step 1": fault})
    waiting = await submitted_while_one_runs(scheduler, model)
    model.let_pass()
    with pytest.raises(EngineFailure):
        await waiting[0]
    assert scheduler.dead
    with pytest.raises(EngineFailure):
        await submitted(scheduler, model, 2)


@pytest.mark.parametrize(
    "fault",
    [
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasLtMatmul`"),
        RuntimeError("HIP error: invalid device function"),
        type("AcceleratorError", (RuntimeError,), {})("CUDA error: out of memory"),
    ],
)
async def test_a_device_that_refuses_one_call_is_not_lost(scheduler: Scheduler, fault: Exception) -> None:
    model = Model({"step 1": fault})
    waiting = await submitted_while_one_runs(scheduler, model)
    model.let_pass()
    assert await waiting[0] == -1
    assert not scheduler.dead


async def test_a_model_that_hangs_shows_and_its_jobs_can_be_answered() -> None:
    scheduler, model = Scheduler(), Model()
    assert scheduler.stalled_s == 0
    waiting = await submitted_while_one_runs(scheduler, model, 2)
    while scheduler.stalled_s < 0.02:
        await asyncio.sleep(0.001)
    scheduler.fail("by hand")
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [EngineFailure, EngineFailure]
    model.let_pass()  # it was only slow: no job is answered twice
    while scheduler.stalled_s:
        await asyncio.sleep(0.001)


async def test_a_lower_bound_of_a_recordings_duration_is_learnt(scheduler: Scheduler) -> None:
    assert scheduler.min_duration_s(3600) == 0  # nothing is known yet
    model = Model()
    model.let_pass()
    assert await submitted(scheduler, model, 1) == -1
    while scheduler.busy:
        await asyncio.sleep(0.001)
    least = scheduler.min_duration_s(3600)
    assert 0 < least < 3600  # 5 s of audio in far less than that
    assert scheduler.min_duration_s(1800) == least / 2


async def test_a_job_that_ran_alone_gives_no_bound_for_eight_together(scheduler: Scheduler) -> None:
    model = Model()
    began = time.monotonic()
    waiting = submitted(scheduler, model, 1)
    await asyncio.to_thread(model.at_step.wait, 20)
    await asyncio.sleep(0.02)
    model.let_pass()
    await waiting
    while scheduler.busy:
        await asyncio.sleep(0.001)
    assert 0 < scheduler.min_duration_s(5) <= (time.monotonic() - began) / 8 / 2
    scheduler.forget_model()
    assert scheduler.min_duration_s(5) == 0


async def test_a_batch_waits_for_more_until_it_is_full_or_for_the_time_that_is_set(scheduler: Scheduler) -> None:
    model = Model()
    model.let_pass()
    results = [
        submitted(scheduler, model, item, batch_wait_s=60) for item in range(1, 9)
    ]  # max_batch=8: the batch is full
    assert await asyncio.gather(*results) == [-item for item in range(1, 9)]
    assert model.together[0] == list(range(1, 9))
    assert await submitted(scheduler, model, 1, batch_wait_s=0.01) == -1  # no other job comes


async def test_a_cancelled_job_ends_the_wait_for_its_batch(scheduler: Scheduler) -> None:
    model = Model()
    model.let_pass()
    cancelled = submitted(scheduler, model, 1, batch_wait_s=60)
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.sleep(0)
    assert await submitted(scheduler, model, 2) == -2
    assert [1] not in model.together


async def test_the_collector_may_collect_a_dropped_model_while_a_load_is_submitted(loader) -> None:
    """It runs in the middle of anything, also of the executor's `submit` that reclaims the model's memory."""
    resident = Resident(loader)
    thresholds = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for number in range(200):
            loader.recognizer = type(loader.recognizer)()
            loader.recognizer.itself = loader.recognizer  # only the collector ends it
            ref = weakref.ref(loader.recognizer)
            await asyncio.wait_for(resident.load(LoadOptions(model=str(number))), 20)
    finally:
        gc.set_threshold(*thresholds)
    assert ref() is loader.recognizer


async def test_what_waits_before_a_recording_counts_towards_its_duration(scheduler: Scheduler) -> None:
    model = Model()
    model.let_pass()
    assert await submitted(scheduler, model, 1) == -1
    while scheduler.busy:
        await asyncio.sleep(0.001)
    alone_s = scheduler.min_duration_s(5)
    busy = Model()
    waiting = await submitted_while_one_runs(scheduler, busy, 2, 3, 4)
    assert scheduler.waiting[1] == 15
    assert scheduler.min_duration_s(5) == pytest.approx(4 * alone_s)
    assert scheduler.min_duration_s(1) == pytest.approx(0.2 * alone_s)  # a short command goes first
    busy.let_pass()
    await asyncio.gather(*waiting)
