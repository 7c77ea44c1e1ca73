"""What waits for the model, in a fair order.

Rules: fair queueing over seconds of audio, self-clocked (Golestani 1994): a job's turn is the clock, or its request's
last turn, plus its own length. A short command goes before the next chunk of a long recording, and no stream of
commands starves it. What enters together is of like length. Not thread-safe: the scheduler's lock is held.
"""

from __future__ import annotations

import time
from bisect import bisect_left, insort
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from math import inf
from typing import Any
from weakref import WeakKeyDictionary

from backend.process.request_stats import RequestStats
from backend.serving.one_shot import ScheduledSession

_LIKE_LENGTH = 2.0  # prompts that are read together cost the longest: none is padded to more than twice its own length


@dataclass(eq=False)
class Job:
    """One item, of so many `seconds` of audio, for a session of `begin()`'s, with at most `most - 1` others.

    `begin` is a bound method of the model, or equal for equal work: jobs of one session share it. `gather_s`: how long
    a session that begins with it waits for more; `max_prefill_s`: of audio that enter together. `gone`: nobody waits
    for its answer any more. `alone`: it has failed once, so it runs when nothing else does.
    """

    begin: Callable[[], ScheduledSession]
    item: Any
    seconds: float
    most: int
    owner: RequestStats
    gather_s: float = 0.0
    max_prefill_s: float = inf
    future: Future[Any] = field(default_factory=Future)
    turn: float = 0.0
    since: float = field(default_factory=time.monotonic)
    gone: bool = False
    alone: bool = False


@dataclass(eq=False)
class Running:
    """A session and the jobs in it."""

    session: ScheduledSession
    jobs: list[Job] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return sum(job.seconds for job in self.jobs)


class FairQueue:
    """Unbounded: how much there can be is decided at the door, see pipeline/admission.py."""

    def __init__(self) -> None:
        self._jobs: list[Job] = []  # by turn
        self._clock = 0.0  # the turn of what was taken last
        self._turns: WeakKeyDictionary[RequestStats, float] = WeakKeyDictionary()  # the last turn of every owner

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def seconds(self) -> float:
        return sum(job.seconds for job in self._jobs)

    @property
    def first(self) -> Job:
        """Whose turn it is. Raises IndexError if nothing waits."""
        return self._jobs[0]

    def put(self, job: Job) -> None:
        job.turn = max(self._clock, self._turns.get(job.owner, 0.0)) + job.seconds
        self._turns[job.owner] = job.turn
        insort(self._jobs, job, key=_turn)

    def put_back(self, job: Job) -> None:
        """It was taken, and could not enter; it keeps its turn."""
        job.owner.passage_ended()
        job.since = time.monotonic()
        insort(self._jobs, job, key=_turn)

    def remove(self, job: Job) -> None:
        """Whether it waits or not."""
        at = bisect_left(self._jobs, job.turn, key=_turn)  # a request of thousands leaves in one turn of the event loop
        while at < len(self._jobs) and self._jobs[at].turn == job.turn:
            if self._jobs[at] is job:
                del self._jobs[at]
                job.owner.record_wait(job.since)
                return
            at += 1

    def clear(self) -> list[Job]:
        """All of them, which wait no longer."""
        jobs, self._jobs = self._jobs, []
        return jobs

    def take(self, running: Mapping[Callable[[], ScheduledSession], Running], most_s: float) -> list[Job]:
        """The jobs that enter a session now: the next whose session has room, and others of its kind and length.

        `most_s`: of audio, in one session. Who is too long for what is left of that keeps it: what is shorter and comes
        later would take it for ever.
        """
        room = {begin: (len(held.jobs), held.seconds) for begin, held in running.items()}
        taken: list[Job] = []
        kept: set[Callable[[], ScheduledSession]] = set()  # the sessions whose room is
        for job in self._jobs:
            if job.alone and (running or taken):
                break  # what comes after it would never let it be alone
            if taken and (job.begin != taken[0].begin or not _are_alike(job.seconds, taken[0].seconds)):
                continue
            if taken and sum(other.seconds for other in taken) + job.seconds > job.max_prefill_s:
                break
            rows, seconds = room.get(job.begin, (0, 0.0))
            if rows and seconds + job.seconds > most_s:
                kept.add(job.begin)
            if rows >= job.most or job.begin in kept:
                continue
            taken.append(job)
            room[job.begin] = rows + 1, seconds + job.seconds
            if job.alone:
                break
        if taken:
            entering = set(taken)
            self._jobs = [job for job in self._jobs if job not in entering]
            self._clock = max(self._clock, taken[0].turn)
        return [job for job in taken if _enters(job)]


def _turn(job: Job) -> float:
    return job.turn


def _enters(job: Job) -> bool:
    """Tells the job's future and its owner; False if it was cancelled a moment ago."""
    if not job.future.running():  # else it was put back
        if not job.future.set_running_or_notify_cancel():
            return False
        job.future.add_done_callback(job.owner.passage_ended)
    job.owner.passage_started(job.since)
    return True


def _are_alike(seconds: float, other: float) -> bool:
    return max(seconds, other) <= _LIKE_LENGTH * max(min(seconds, other), 0.5)
