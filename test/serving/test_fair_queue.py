"""The order of the fair queue, and sessions that jobs join between two steps."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from backend.errors import EngineFailure, OutOfMemory
from backend.process.request_stats import RequestStats
from backend.serving.scheduler import Scheduler
from backend.serving.session_kind import SessionKind


@dataclass
class Counting:
    """Its sessions take n % 100 steps for an item n. `added`: the items of every add; `steps`: those of every step."""

    faults: dict[int, Exception] = field(default_factory=dict)  # by item: raised by a step of the item with others
    gate: threading.Event | None = None
    added: list[list[int]] = field(default_factory=list)
    steps: list[list[int]] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)
    entered: threading.Event = field(default_factory=threading.Event)

    def session(self) -> CountingSession:
        return CountingSession(self)


@dataclass
class CountingSession:
    model: Counting
    left: dict[int, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.left)

    def add(self, items: Sequence[int]) -> None:
        self.model.added.append(list(items))
        self.left |= {item: item % 100 for item in items}

    def step(self) -> list[tuple[int, Any]]:
        self.model.entered.set()
        if self.model.gate is not None:
            assert self.model.gate.wait(20)
        self.model.steps.append(list(self.left))
        for item in self.left:
            if item in self.model.faults and len(self.left) > 1:
                raise self.model.faults[item]
        self.left = {item: left - 1 for item, left in self.left.items()}
        ended = [item for item, left in self.left.items() if left <= 0]
        for item in ended:
            del self.left[item]
        return [(item, -item) for item in ended]

    def drop(self, item: int) -> None:
        self.model.dropped.append(item)
        del self.left[item]


def submitted(
    scheduler: Scheduler,
    model: Counting,
    item: int,
    *,
    audio_s: float = 5.0,
    max_batch: int = 8,
    owner: RequestStats | None = None,
) -> asyncio.Future[int]:
    kind = SessionKind("count", model, model.session, max_batch)
    return asyncio.ensure_future(scheduler.submit(kind, item, audio_s=audio_s, owner=owner))


async def running(scheduler: Scheduler, model: Counting, max_batch: int = 8) -> asyncio.Future[int]:
    """A first item, which keeps the model busy until its gate opens."""
    model.gate = threading.Event()
    first = submitted(scheduler, model, 1, max_batch=max_batch, audio_s=0.0)
    await asyncio.to_thread(model.entered.wait, 20)
    return first


async def results(model: Counting, *waiting: asyncio.Future[int]) -> list[Any]:
    await asyncio.sleep(0)  # let them submit
    assert model.gate is not None
    model.gate.set()
    return await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_job_joins_the_session_between_two_steps_and_is_answered_when_it_ends(scheduler: Scheduler) -> None:
    model = Counting()
    first = await running(scheduler, model)
    assert await results(model, first, submitted(scheduler, model, 3), submitted(scheduler, model, 2)) == [-1, -3, -2]
    assert model.added == [[1], [3, 2]]
    assert model.steps == [[1], [3, 2], [3, 2], [3]]


async def test_a_row_that_ends_makes_room_for_the_next(scheduler: Scheduler) -> None:
    model = Counting()
    first = await running(scheduler, model, max_batch=2)
    rest = [submitted(scheduler, model, item, max_batch=2) for item in (103, 201, 302)]
    await results(model, first, *rest)
    assert model.steps[1:] == [[103, 201], [103, 302], [103, 302]]


async def test_a_short_command_goes_before_the_next_chunk_of_a_long_recording(scheduler: Scheduler) -> None:
    model, long, command = Counting(), RequestStats(), RequestStats()
    first = await running(scheduler, model, max_batch=1)
    chunks = [submitted(scheduler, model, 101 + 100 * n, max_batch=1, audio_s=15.0, owner=long) for n in range(6)]
    short = submitted(scheduler, model, 901, max_batch=1, audio_s=3.0, owner=command)
    await results(model, first, *chunks, short)
    assert [items[0] for items in model.added[:3]] == [1, 901, 101]


async def test_new_commands_do_not_overtake_a_chunk_for_ever(scheduler: Scheduler) -> None:
    """A command comes whenever one ends: after five of 3 s each, a waiting chunk of 15 s has run."""
    model = Counting()
    first = await running(scheduler, model, max_batch=1)
    chunk = submitted(scheduler, model, 101, max_batch=1, audio_s=15.0)
    command = submitted(scheduler, model, 201, max_batch=1, audio_s=3.0)
    await results(model, first)
    served = 0
    while not chunk.done():
        await command
        served += 1
        command = submitted(scheduler, model, 301 + 100 * served, max_batch=1, audio_s=3.0)
        assert served < 10
    assert await chunk == -101
    await command


class Turnstile:
    """A gate that lets one step through for each `push`."""

    def __init__(self) -> None:
        self._steps = threading.Semaphore(0)

    def wait(self, timeout_s: float) -> bool:
        return self._steps.acquire(timeout=timeout_s)

    def push(self, times: int) -> None:
        self._steps.release(times)


async def test_a_cancelled_job_leaves_the_session_at_the_next_step(scheduler: Scheduler) -> None:
    turnstile: Any = Turnstile()
    model = Counting()
    model.gate = turnstile
    cancelled = submitted(scheduler, model, 190)
    await asyncio.to_thread(model.entered.wait, 20)
    kept = submitted(scheduler, model, 203)
    await asyncio.sleep(0)
    turnstile.push(1)
    while len(model.added) < 2:
        await asyncio.sleep(0.001)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    turnstile.push(100)
    assert await kept == -203
    assert model.dropped == [190]
    assert model.steps == [[190], [190, 203], [203], [203]]


async def test_a_cancelled_request_removes_its_own_chunks_from_the_queue_and_no_others(scheduler: Scheduler) -> None:
    model, cancelled, other = Counting(), RequestStats(), RequestStats()
    first = await running(scheduler, model)
    both = [
        [submitted(scheduler, model, at + 100 * n, owner=owner, audio_s=5.1) for n in range(1, 40)]
        for at, owner in ((1, cancelled), (2, other))
    ]
    await asyncio.sleep(0)
    for chunk in both[0]:
        chunk.cancel()
    await asyncio.wait(both[0])
    audio_s: Any = pytest.approx(39 * 5.1)
    assert scheduler.waiting == (39, audio_s)
    assert await results(model, first, *both[1]) == [-1, *(-2 - 100 * n for n in range(1, 40))]
    assert scheduler.waiting == (0, 0.0)
    assert all(item % 100 == 2 for items in model.added[1:] for item in items)


@pytest.mark.parametrize(("fault", "failure"), [(RuntimeError("boom"), EngineFailure), (MemoryError(), OutOfMemory)])
async def test_jobs_that_fail_together_are_retried_alone(scheduler: Scheduler, fault: Exception, failure: type) -> None:
    model = Counting(faults={203: fault})
    first = await running(scheduler, model)
    assert await results(model, first, *(submitted(scheduler, model, item) for item in (103, 203, 303))) == [
        -1, -103, -203, -303,
    ]  # fmt: skip
    assert model.steps[1] == [103, 203, 303]
    assert [203] in model.steps


async def together(scheduler: Scheduler, model: Counting, *items: int, audio_s: float = 40.0) -> list[list[int]]:
    """The rows of every step for these items, which have waited together."""
    model.entered.clear()
    first = await running(scheduler, model)
    model.steps.clear()
    await results(model, first, *(submitted(scheduler, model, item, audio_s=audio_s) for item in items))
    return model.steps[1:]


async def out_of_memory(scheduler: Scheduler, audio_s: float = 40.0) -> Counting:
    """A model that had too little memory for four items together."""
    model = Counting(faults={203: MemoryError()})
    await together(scheduler, model, 103, 203, 303, 403, audio_s=audio_s)
    model.faults.clear()
    return model


async def test_after_memory_ran_out_less_runs_together(scheduler: Scheduler) -> None:
    model = await out_of_memory(scheduler)
    steps = await together(scheduler, model, 502, 602, 702, 802)
    assert steps == [*[[502, 602]] * 2, *[[702, 802]] * 2]  # 80 s of the 160 s that failed


async def test_an_hour_of_answered_audio_doubles_the_bound_and_another_hour_lifts_it(
    scheduler: Scheduler,
) -> None:
    model = await out_of_memory(scheduler)
    await submitted(scheduler, model, 901, audio_s=3600.0)
    assert await together(scheduler, model, 501, 601, 701, 801, 901) == [[501, 601, 701, 801], [901]]
    await submitted(scheduler, model, 901, audio_s=3600.0)
    assert await together(scheduler, model, 501, 601, 701, 801, 901) == [[501, 601, 701, 801, 901]]


async def test_another_model_starts_without_a_bound(scheduler: Scheduler) -> None:
    model = await out_of_memory(scheduler)
    scheduler.forget_model()
    assert await together(scheduler, model, 501, 601, 701, 801) == [[501, 601, 701, 801]]


async def test_a_chunk_that_is_too_long_for_the_room_left_reserves_it(scheduler: Scheduler) -> None:
    """Commands of one request, each of which would fit when another ends; the chunk is the sixth in the queue."""
    model, commands = await out_of_memory(scheduler, audio_s=15.0), RequestStats()
    model.entered.clear()
    first = await running(scheduler, model)
    model.added.clear()
    every = [100 * number + 2 + number % 7 for number in range(10, 40)]
    waiting = [submitted(scheduler, model, item, audio_s=3.0, owner=commands) for item in every[:5]]
    waiting += [submitted(scheduler, model, 9903, audio_s=15.0)]
    waiting += [submitted(scheduler, model, item, audio_s=3.0, owner=commands) for item in every[5:]]
    await results(model, first, *waiting)
    assert model.added[:2] == [every[:8], [9903]]  # eight were added together, as they are of one length; no ninth
    assert sorted(item for items in model.added[2:] for item in items) == every[8:]
