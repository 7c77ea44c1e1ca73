"""One job's fault is its own, and every job is answered: the scheduler over sessions that fail by plan."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from backend.errors import EngineFailure, OutOfMemory
from backend.options import LoadOptions
from backend.serving.resident import Resident
from backend.serving.scheduler import Scheduler

OUT_OF_MEMORY = MemoryError()


@dataclass(eq=False)
class Model:
    """Its sessions say `-item` after two steps, and raise what `faults` has for an event: once each, or if it `lasts`.

    A step passes the gate for each `let_pass`; `at_step` is set when one begins.
    """

    faults: dict[str, Exception] = field(default_factory=dict)
    lasts: bool = False
    gate: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    at_step: threading.Event = field(default_factory=threading.Event)
    together: list[list[int]] = field(default_factory=list)

    def session(self) -> Rows:
        self.happen("session")
        return Rows(self)

    def let_pass(self, steps: int = 1000) -> None:
        self.gate.release(steps)

    def happen(self, event: str) -> None:
        fault = self.faults.get(event) if self.lasts else self.faults.pop(event, None)
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

    def step(self) -> list[tuple[int, int]]:
        self.model.together.append(sorted(self.left))
        self.model.at_step.set()
        assert self.model.gate.acquire(timeout=20)
        for item in self.left:
            self.model.happen(f"step {item}")
        self.left = {item: steps - 1 for item, steps in self.left.items()}
        ended = [item for item, steps in self.left.items() if not steps]
        for item in ended:
            del self.left[item]
        return [(item, -item) for item in ended]

    def drop(self, item: int) -> None:
        self.model.happen(f"drop {item}")
        del self.left[item]


def joined(scheduler: Scheduler, model: Model, item: int, **more: float) -> asyncio.Future[int]:
    return asyncio.ensure_future(scheduler.join(model.session, item, seconds=5, most=8, **more))


async def joined_while_one_runs(scheduler: Scheduler, model: Model, *items: int) -> list[asyncio.Future[int]]:
    """Item 1 runs and is held at its first step; the others have come meanwhile."""
    first = joined(scheduler, model, 1)
    assert await asyncio.to_thread(model.at_step.wait, 20)
    others = [joined(scheduler, model, item) for item in items]
    await asyncio.sleep(0)
    return [first, *others]


async def test_a_session_that_cannot_begin_fails_its_jobs_and_not_the_thread(scheduler: Scheduler) -> None:
    model = Model({"session": ValueError()}, lasts=True)
    model.let_pass()
    with pytest.raises(EngineFailure):
        await joined(scheduler, model, 1)
    model.lasts = False
    assert await joined(scheduler, model, 2) == -2  # the first try fails, the second does not


async def test_a_row_that_cannot_be_dropped_costs_the_others_nothing(scheduler: Scheduler) -> None:
    model = Model({"drop 2": ValueError()})
    first, second, third = await joined_while_one_runs(scheduler, model, 2, 3)
    model.at_step.clear()
    model.let_pass()
    while [1, 2, 3] not in model.together:
        await asyncio.sleep(0)
    second.cancel()
    assert await asyncio.gather(first, third) == [-1, -3]
    assert await joined(scheduler, model, 4) == -4


@pytest.mark.parametrize("others", [[2], [2, 3]])
async def test_who_has_no_memory_beside_others_runs_alone_when_they_have_ended(
    scheduler: Scheduler, others: list[int]
) -> None:
    model = Model({"add 2": OUT_OF_MEMORY})
    waiting = await joined_while_one_runs(scheduler, model, *others)
    model.let_pass()
    assert await asyncio.gather(*waiting) == [-1, *(-item for item in others)]
    assert model.together == [[item] for item in (1, *others) for _ in range(2)]
    assert scheduler.engine_stats.oom_events == 1
    assert scheduler.engine_stats.retries == len(others)


async def test_memory_that_is_there_a_moment_later_is_enough(scheduler: Scheduler, caplog) -> None:
    model = Model({"step 1": OUT_OF_MEMORY})
    model.let_pass()
    assert await joined(scheduler, model, 1) == -1
    assert scheduler.engine_stats.oom_events == 0  # one alone cannot be split
    assert scheduler.engine_stats.retries == 0
    assert "one that ran alone failed" in caplog.text


async def test_who_has_no_memory_even_alone_is_told_so(scheduler: Scheduler) -> None:
    model = Model({"add 2": OUT_OF_MEMORY}, lasts=True)
    first, second = await joined_while_one_runs(scheduler, model, 2)
    model.let_pass()
    assert await first == -1
    with pytest.raises(OutOfMemory):
        await second


async def test_who_was_put_back_and_whose_client_leaves_is_forgotten(scheduler: Scheduler) -> None:
    model = Model({"add 2": OUT_OF_MEMORY})
    first, second = await joined_while_one_runs(scheduler, model, 2)
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
async def test_a_lost_device_is_the_end_of_the_engine(scheduler: Scheduler, fault: Exception) -> None:
    model = Model({"step 1": fault})
    waiting = await joined_while_one_runs(scheduler, model)
    model.let_pass()
    with pytest.raises(EngineFailure):
        await waiting[0]
    assert scheduler.dead
    with pytest.raises(EngineFailure):
        await joined(scheduler, model, 2)


@pytest.mark.parametrize(
    "fault",
    [
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasLtMatmul`"),
        RuntimeError("HIP error: invalid device function"),
        type("AcceleratorError", (RuntimeError,), {})("CUDA error: out of memory"),
    ],
)
async def test_what_a_device_refuses_once_is_no_loss_of_it(scheduler: Scheduler, fault: Exception) -> None:
    model = Model({"step 1": fault})
    waiting = await joined_while_one_runs(scheduler, model)
    model.let_pass()
    assert await waiting[0] == -1
    assert not scheduler.dead


async def test_a_model_that_hangs_shows_and_those_who_wait_for_it_can_be_answered() -> None:
    scheduler, model = Scheduler(), Model()
    assert scheduler.stalled_s == 0
    waiting = await joined_while_one_runs(scheduler, model, 2)
    while scheduler.stalled_s < 0.02:
        await asyncio.sleep(0.001)
    scheduler.fail("by hand")
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [EngineFailure, EngineFailure]
    model.let_pass()  # it was only slow: nobody is answered twice
    while scheduler.stalled_s:
        await asyncio.sleep(0.001)


async def test_what_a_recording_takes_at_the_very_least_is_learnt(scheduler: Scheduler) -> None:
    assert scheduler.at_least_s(3600) == 0  # nothing is known yet
    model = Model()
    model.let_pass()
    assert await joined(scheduler, model, 1) == -1
    while scheduler.busy:
        await asyncio.sleep(0.001)
    least = scheduler.at_least_s(3600)
    assert 0 < least < 3600  # 5 s of audio in far less than that
    assert scheduler.at_least_s(1800) == least / 2


async def test_what_was_heard_alone_is_no_bound_for_eight_at_once(scheduler: Scheduler) -> None:
    model = Model()
    began = time.monotonic()
    waiting = joined(scheduler, model, 1)
    await asyncio.to_thread(model.at_step.wait, 20)
    await asyncio.sleep(0.02)
    model.let_pass()
    await waiting
    while scheduler.busy:
        await asyncio.sleep(0.001)
    assert 0 < scheduler.at_least_s(5) <= (time.monotonic() - began) / 8 / 2
    scheduler.forget_model()
    assert scheduler.at_least_s(5) == 0


async def test_nothing_waits_unless_it_is_wanted_and_then_no_longer_than_that(scheduler: Scheduler) -> None:
    model = Model()
    model.let_pass()
    results = [joined(scheduler, model, item, gather_s=60) for item in range(1, 9)]  # most=8: the batch is full
    assert await asyncio.gather(*results) == [-item for item in range(1, 9)]
    assert model.together[0] == list(range(1, 9))
    assert await joined(scheduler, model, 1, gather_s=0.01) == -1  # nobody else comes


async def test_a_client_that_leaves_ends_the_gathering_for_it(scheduler: Scheduler) -> None:
    model = Model()
    model.let_pass()
    gone = joined(scheduler, model, 1, gather_s=60)
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    assert await joined(scheduler, model, 2) == -2
    assert [1] not in model.together


async def test_the_collector_may_find_a_dropped_model_while_a_load_is_submitted(loader) -> None:
    """It runs in the middle of anything, also of the executor's `submit` that would reclaim the model's memory."""
    resident = Resident(loader)
    thresholds = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for number in range(200):
            loader.recognizer = type(loader.recognizer)()
            loader.recognizer.itself = loader.recognizer  # only the collector ends it
            gone = weakref.ref(loader.recognizer)
            await asyncio.wait_for(resident.load(LoadOptions(model=str(number))), 20)
    finally:
        gc.set_threshold(*thresholds)
    assert gone() is loader.recognizer
