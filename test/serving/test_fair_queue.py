"""Whose turn it is, and what happens in a session that is joined between its steps."""

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


@dataclass
class Counting:
    """Sessions in which an item of n takes n steps. `log`: what was added together; `steps`: rows of every step."""

    faults: dict[int, Exception] = field(default_factory=dict)  # by item: raised in the step that has it with others
    gate: threading.Event | None = None
    log: list[list[int]] = field(default_factory=list)
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
        self.model.log.append(list(items))
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


def joining(scheduler: Scheduler, model: Counting, item: int, **named: Any) -> asyncio.Future[int]:
    return asyncio.ensure_future(scheduler.join(model.session, item, **{"seconds": 5.0, "most": 8, **named}))


async def held(scheduler: Scheduler, model: Counting, most: int = 8) -> asyncio.Future[int]:
    """A first item that keeps the model busy until its gate opens."""
    model.gate = threading.Event()
    first = joining(scheduler, model, 1, most=most, seconds=0.0)
    await asyncio.to_thread(model.entered.wait, 20)
    return first


async def released(model: Counting, *waiting: asyncio.Future[int]) -> list[Any]:
    await asyncio.sleep(0)  # let them submit
    assert model.gate is not None
    model.gate.set()
    return await asyncio.gather(*waiting, return_exceptions=True)


async def test_who_comes_later_joins_between_two_steps_and_is_answered_when_it_ends(scheduler: Scheduler) -> None:
    model = Counting()
    first = await held(scheduler, model)
    assert await released(model, first, joining(scheduler, model, 3), joining(scheduler, model, 2)) == [-1, -3, -2]
    assert model.log == [[1], [3, 2]]
    assert model.steps == [[1], [3, 2], [3, 2], [3]]


async def test_a_row_that_ends_makes_room_for_the_next(scheduler: Scheduler) -> None:
    model = Counting()
    first = await held(scheduler, model)
    rest = [joining(scheduler, model, item, most=2) for item in (103, 201, 302)]
    await released(model, first, *rest)
    assert model.steps[1:] == [[103, 201], [103, 302], [103, 302]]


async def test_a_short_command_goes_before_the_next_chunk_of_a_long_recording(scheduler: Scheduler) -> None:
    model, long, command = Counting(), RequestStats(), RequestStats()
    first = await held(scheduler, model, most=1)
    chunks = [joining(scheduler, model, 101 + 100 * n, most=1, seconds=15.0, owner=long) for n in range(6)]
    short = joining(scheduler, model, 901, most=1, seconds=3.0, owner=command)
    await released(model, first, *chunks, short)
    assert [items[0] for items in model.log[:3]] == [1, 901, 101]


async def test_new_commands_do_not_overtake_a_chunk_for_ever(scheduler: Scheduler) -> None:
    """A command comes whenever one ends: after five of 3 s each, a chunk of 15 s that waited has had its turn."""
    model = Counting()
    first = await held(scheduler, model, most=1)
    chunk = joining(scheduler, model, 101, most=1, seconds=15.0)
    command = joining(scheduler, model, 201, most=1, seconds=3.0)
    await released(model, first)
    served = 0
    while not chunk.done():
        await command
        served += 1
        command = joining(scheduler, model, 301 + 100 * served, most=1, seconds=3.0)
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


async def test_whom_nobody_waits_for_leaves_the_session_at_the_next_step(scheduler: Scheduler) -> None:
    model, turnstile = Counting(), Turnstile()
    model.gate = turnstile  # type: ignore[assignment]
    gone = joining(scheduler, model, 190)
    await asyncio.to_thread(model.entered.wait, 20)
    kept = joining(scheduler, model, 203)
    await asyncio.sleep(0)
    turnstile.push(1)
    while len(model.log) < 2:
        await asyncio.sleep(0.001)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    turnstile.push(100)
    assert await kept == -203
    assert model.dropped == [190]
    assert model.steps == [[190], [190, 203], [203], [203]]


async def test_who_leaves_the_queue_takes_his_chunks_along_and_no_others(scheduler: Scheduler) -> None:
    model, leaver, stayer = Counting(), RequestStats(), RequestStats()
    first = await held(scheduler, model)
    both = [
        [joining(scheduler, model, at + 100 * n, owner=owner, seconds=5.1) for n in range(1, 40)]
        for at, owner in ((1, leaver), (2, stayer))
    ]
    await asyncio.sleep(0)
    for chunk in both[0]:
        chunk.cancel()
    await asyncio.wait(both[0])
    assert scheduler.waiting == (39, pytest.approx(39 * 5.1))
    assert await released(model, first, *both[1]) == [-1, *(-2 - 100 * n for n in range(1, 40))]
    assert scheduler.waiting == (0, 0)
    assert all(item % 100 == 2 for items in model.log[1:] for item in items)


@pytest.mark.parametrize(("fault", "failure"), [(RuntimeError("boom"), EngineFailure), (MemoryError(), OutOfMemory)])
async def test_what_fails_together_is_run_again_alone(scheduler: Scheduler, fault: Exception, failure: type) -> None:
    model = Counting(faults={203: fault})
    first = await held(scheduler, model)
    assert await released(model, first, *(joining(scheduler, model, item) for item in (103, 203, 303))) == [
        -1, -103, -203, -303,
    ]  # fmt: skip
    assert model.steps[1] == [103, 203, 303]
    assert [203] in model.steps


async def together(scheduler: Scheduler, model: Counting, *items: int, seconds: float = 40.0) -> list[list[int]]:
    """The rows of every step that it takes to answer these, which have waited together."""
    model.entered.clear()
    first = await held(scheduler, model)
    model.steps.clear()
    await released(model, first, *(joining(scheduler, model, item, seconds=seconds) for item in items))
    return model.steps[1:]


async def out_of_memory(scheduler: Scheduler, seconds: float = 40.0) -> Counting:
    """A model that had too little of it for four together."""
    model = Counting(faults={203: MemoryError()})
    await together(scheduler, model, 103, 203, 303, 403, seconds=seconds)
    model.faults.clear()
    return model


async def test_after_memory_ran_out_less_runs_together(scheduler: Scheduler) -> None:
    model = await out_of_memory(scheduler)
    steps = await together(scheduler, model, 502, 602, 702, 802)
    assert steps == [*[[502, 602]] * 2, *[[702, 802]] * 2]  # 80 s of the 160 s that were too much


async def test_what_went_well_for_an_hour_of_sound_may_be_twice_as_much_until_anything_may(
    scheduler: Scheduler,
) -> None:
    model = await out_of_memory(scheduler)
    await joining(scheduler, model, 901, seconds=3600.0)
    assert await together(scheduler, model, 501, 601, 701, 801, 901) == [[501, 601, 701, 801], [901]]
    await joining(scheduler, model, 901, seconds=3600.0)
    assert await together(scheduler, model, 501, 601, 701, 801, 901) == [[501, 601, 701, 801, 901]]


async def test_another_model_may_have_room_for_more(scheduler: Scheduler) -> None:
    model = await out_of_memory(scheduler)
    scheduler.forget_model()
    assert await together(scheduler, model, 501, 601, 701, 801) == [[501, 601, 701, 801]]


async def test_a_chunk_that_is_too_long_for_the_room_left_gets_it_before_those_that_come_later(
    scheduler: Scheduler,
) -> None:
    """Commands of one request, each of which would fit when another ends; the chunk's turn is the sixth."""
    model, commands = await out_of_memory(scheduler, seconds=15.0), RequestStats()
    model.entered.clear()
    first = await held(scheduler, model)
    model.log.clear()
    every = [100 * number + 2 + number % 7 for number in range(10, 40)]
    waiting = [joining(scheduler, model, item, seconds=3.0, owner=commands) for item in every[:5]]
    waiting += [joining(scheduler, model, 9903, seconds=15.0)]
    waiting += [joining(scheduler, model, item, seconds=3.0, owner=commands) for item in every[5:]]
    await released(model, first, *waiting)
    assert model.log[:2] == [every[:8], [9903]]  # eight entered at once, as they are of one length; no ninth
    assert sorted(item for items in model.log[2:] for item in items) == every[8:]
