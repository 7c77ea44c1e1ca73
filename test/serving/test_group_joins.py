"""Jobs join in groups where a join stops the device for long: when, and what it is worth on a GPU."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from backend.process.request_stats import RequestStats
from backend.serving.fair_queue import FairQueue
from backend.serving.job import Job, RunningSession
from backend.serving.scheduler import Scheduler
from backend.serving.session_kind import SessionKey, SessionKind

ROWS = 8
NO_SESSION: Any = None  # the queue looks at the jobs of a session alone


class Clock:
    """Seconds that pass when somebody says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class House:
    """A queue, and a session with `running` jobs."""

    def __init__(self, running: int, *, in_groups: bool = True) -> None:
        self.clock = Clock()
        self.queue = FairQueue(self.clock)
        self.kind = SessionKind("work", self, lambda: NO_SESSION, ROWS, joins_in_groups=in_groups)
        self.session = RunningSession(self.kind, NO_SESSION, [self._job() for _ in range(running)])

    def wait(self, jobs: int) -> None:
        for _ in range(jobs):
            self.queue.put(self._job())

    def take(self) -> int:
        """How many jobs join now."""
        running: dict[SessionKey, RunningSession] = {self.kind.key: self.session} if self.session.jobs else {}
        jobs = self.queue.take(running, 1e9)
        self.session.jobs += jobs
        return len(jobs)

    def end(self, jobs: int) -> None:
        del self.session.jobs[:jobs]

    def _job(self) -> Job:
        return Job(self.kind, object(), 5.0, RequestStats())


def test_jobs_join_at_once_when_nothing_runs_or_half_of_the_places_are_free() -> None:
    house = House(0)
    house.wait(3)
    assert house.take() == 3
    house.wait(1)
    assert house.take() == 1  # five places were free
    house.wait(9)
    assert house.take() == 4


def test_a_free_place_waits_for_others_or_for_100_ms() -> None:
    house = House(8)
    house.wait(9)
    house.end(1)
    assert house.take() == 0
    house.clock.now += 0.099
    house.end(2)
    assert house.take() == 0
    house.end(1)
    assert house.take() == 4  # half
    house.end(1)
    assert house.take() == 0
    house.clock.now += 0.101
    assert house.take() == 1


def test_the_time_counts_from_when_a_place_is_free_and_a_job_waits() -> None:
    house = House(7)
    assert house.take() == 0
    house.clock.now += 10
    house.wait(1)
    assert house.take() == 0  # the place was free before, and nobody waited
    house.clock.now += 0.101
    assert house.take() == 1
    house.clock.now += 10
    house.wait(2)
    assert house.take() == 0  # a job waits, and no place is free
    house.end(1)
    assert house.take() == 0
    house.clock.now += 0.101
    assert house.take() == 1


def test_on_a_cpu_jobs_join_one_by_one_as_places_are_free() -> None:
    house = House(8, in_groups=False)
    house.wait(3)
    house.end(1)
    assert house.take() == 1


@pytest.mark.parametrize("rows", [1, 2])
def test_a_session_of_few_places_waits_for_none(rows: int) -> None:
    house = House(0)
    house.kind = house.session.kind = SessionKind("work", house, lambda: NO_SESSION, rows, joins_in_groups=True)
    house.wait(rows + 1)
    assert house.take() == rows
    house.end(1)
    assert house.take() == 1


@dataclass(eq=False)
class Passage:
    """A passage of so many seconds whose answer has so many tokens."""

    audio_s: float
    tokens: int


@dataclass
class SimulatedGPU:
    """A session on an H200 with the 1.7B, by its estimated times; `clock` is the only time that passes.

    A join takes 15 ms for one passage and 25 ms for a group, in which the GPU is better used; a step takes 3 ms.
    """

    clock: Clock
    left: dict[int, tuple[Passage, int]] = field(default_factory=dict)
    joins: int = 0

    def __len__(self) -> int:
        return len(self.left)

    def add(self, passages: Sequence[Passage]) -> None:
        self.clock.now += 0.015 if len(passages) == 1 else 0.025
        self.joins += 1
        self.left |= {id(passage): (passage, passage.tokens) for passage in passages}

    def step(self) -> list[tuple[Passage, None]]:
        self.clock.now += 0.003
        ended = [(passage, None) for passage, tokens in self.left.values() if tokens == 1]
        self.left = {key: (passage, tokens - 1) for key, (passage, tokens) in self.left.items() if tokens > 1}
        return ended

    def drop(self, passage: Passage) -> None:
        del self.left[id(passage)]


async def simulated_throughput(passages: Sequence[Passage], rows: int, *, in_groups: bool) -> float:
    """Seconds of audio a second, for a backlog of four long recordings in the real scheduler."""
    clock, opening, gate = Clock(), threading.Event(), threading.Event()
    gpu = SimulatedGPU(clock)

    def opened() -> SimulatedGPU:
        opening.set()
        assert gate.wait(20)  # the backlog is complete before the first passage joins
        return gpu

    scheduler, requests = Scheduler(clock), [RequestStats() for _ in range(4)]
    kind = SessionKind("recognition", gpu, opened, rows, joins_in_groups=in_groups)
    try:
        answers = []
        for number, passage in enumerate(passages):
            job = scheduler.submit(kind, passage, audio_s=passage.audio_s, owner=requests[number % len(requests)])
            answers.append(asyncio.ensure_future(job))
            if not number:
                assert await asyncio.to_thread(opening.wait, 20)
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(*answers)
    finally:
        scheduler.stop()
    return sum(passage.audio_s for passage in passages) / (clock.now - 100.0)


def backlog(longest_s: float, count: int = 600) -> list[Passage]:
    """Passages as the cuts of a recording leave them, in English: 3.6 tokens a second, and the language tag."""
    chance = random.Random(7)
    lengths = [chance.uniform(0.25, 1.0) * longest_s for _ in range(count)]
    return [Passage(s, round(chance.uniform(0.8, 1.2) * 3.6 * s) + 5) for s in lengths]


@pytest.mark.parametrize(("longest_s", "gain"), [(15, 2.4), (30, 1.7)])
async def test_groups_pay_on_a_gpu_with_many_rows(longest_s: float, gain: float) -> None:
    passages = backlog(longest_s)
    singly = await simulated_throughput(passages, 32, in_groups=False)
    in_groups = await simulated_throughput(passages, 32, in_groups=True)
    assert in_groups >= gain * singly, (singly, in_groups)


async def test_more_rows_pay_on_a_gpu() -> None:
    """The default of before, eight rows that join singly, against those of cards from 12 and from 24 GB."""
    passages = backlog(30)
    before = await simulated_throughput(passages, 8, in_groups=False)
    assert await simulated_throughput(passages, 32, in_groups=True) >= 3 * before
    assert await simulated_throughput(passages, 64, in_groups=True) >= 4 * before
