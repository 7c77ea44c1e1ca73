"""Many requests -> the one thread that runs the models, in sessions that are joined between steps.

Rules: nothing waits for a batch to fill, and nothing waits for a batch to end: what waits joins the rows that run as
soon as there is room, together with others of like length. Whose turn it is, is decided by fair queueing over seconds
of audio: a short command goes before the next chunk of a long recording, and no stream of commands starves it. One
job's failure is its own: what fails together is run again alone. The queue is bounded.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from bisect import insort
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from backend.account import Account, Tally
from backend.engine.batches import BatchOf, Together
from backend.errors import AsrError, EngineFailure, OutOfMemory, Overloaded

_log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")
Work = Callable[[Sequence[Item]], Sequence[Result]]

_LONGEST_QUEUE_S = 24 * 3600.0  # four of the longest recordings that are accepted by default
_MOST_REQUESTS = 1000  # that wait; each holds its sound in memory
_LIKE_LENGTH = 2.0  # prompts that are read together cost the longest: none is padded to more than twice its own length
_LEAST_TOGETHER_S = 30.0  # of audio that may run together, however often the memory ran out


@dataclass(eq=False)
class _Job:
    begin: Callable[[], Together]  # a bound method of the model: jobs of one session share it
    item: Any
    seconds: float
    most: int
    future: Future[Any]
    owner: Account
    turn: float = 0.0
    since: float = field(default_factory=time.monotonic)
    gone: bool = False  # nobody waits for it any more


@dataclass(eq=False)
class _Running:
    """A session and the jobs in it."""

    session: Together
    jobs: list[_Job] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return sum(job.seconds for job in self.jobs)


class Scheduler:
    """Owns the model thread. `submit` and `join` are for the event loop's thread."""

    def __init__(self, longest_queue_s: float = _LONGEST_QUEUE_S, most_requests: int = _MOST_REQUESTS) -> None:
        self._waiting: list[_Job] = []  # by turn
        self._longest_queue_s = longest_queue_s
        self._most_requests = most_requests
        self._clock = 0.0  # the turn of what was taken last
        self._turns: WeakKeyDictionary[Account, float] = WeakKeyDictionary()  # the last turn of every owner
        self._running: dict[Callable[[], Together], _Running] = {}
        self._most_s = float("inf")  # of audio together; finite once the memory ran out
        self.tally = Tally()
        self._busy = False
        self._stopping = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        with self._changed:
            return bool(self._busy or self._waiting)

    @property
    def waiting(self) -> tuple[int, float]:
        """How many items wait, and how many seconds of audio they are."""
        with self._changed:
            return len(self._waiting), sum(job.seconds for job in self._waiting)

    async def submit(
        self, work: Work[Item, Result], item: Item, *, seconds: float, most: int, owner: Account | None = None
    ) -> Result:
        """`work([..., item, ...])`'s result for `item`, done with at most `most - 1` others.

        `seconds` is the item's length of audio, `owner` the account of the request that it is for. Raises Overloaded
        at once when too much waits, OutOfMemory, EngineFailure, or the AsrError that `work` raised.
        """
        result: Result = await self.join(BatchOf(work), item, seconds=seconds, most=most, owner=owner)
        return result

    async def join(
        self, begin: Callable[[], Together], item: Any, *, seconds: float, most: int, owner: Account | None = None
    ) -> Any:
        """What a session of `begin()`'s says of `item`, beside at most `most - 1` others. Raises as `submit` does.

        If the caller is cancelled, the item leaves its session at the next step.
        """
        job = _Job(begin, item, seconds, most, Future(), owner or Account())
        with self._changed:
            self._refuse_if_full(job)
            job.turn = max(self._clock, self._turns.get(job.owner, 0.0)) + seconds
            self._turns[job.owner] = job.turn
            insort(self._waiting, job, key=lambda waiting: waiting.turn)
            self._changed.notify()
        try:
            return await asyncio.wrap_future(job.future)
        except asyncio.CancelledError:
            job.gone = True
            with self._changed:
                if job in self._waiting:
                    self._waiting.remove(job)
                    job.owner.waited(job.since)
            raise

    def stop(self) -> None:
        """End the thread after the step that it takes; what waits or runs is cancelled."""
        with self._changed:
            self._stopping = True
            while self._waiting:
                self._waiting.pop().future.cancel()
            self._changed.notify()

    def _refuse_if_full(self, job: _Job) -> None:
        if not self._waiting:
            return
        owners = {waiting.owner for waiting in self._waiting}
        too_many = len(owners) >= self._most_requests and job.owner not in owners
        if too_many or sum(waiting.seconds for waiting in self._waiting) + job.seconds > self._longest_queue_s:
            raise Overloaded

    def _run(self) -> None:
        while self._wait():
            began = time.monotonic()
            self._go_on()
            self.tally.compute_s += time.monotonic() - began
        for running in self._running.values():
            for job in running.jobs:
                job.future.set_exception(EngineFailure())

    def _go_on(self) -> None:
        """A function of its own: while the thread waits, none of its variables may hold a model or sound."""
        self._enter(self._take())
        for begin in list(self._running):
            self._advance(begin)

    def _wait(self) -> bool:
        """Until there is something to do; False when the scheduler stops."""
        with self._changed:
            self._busy = bool(self._running)
            self._changed.wait_for(lambda: self._waiting or self._running or self._stopping)
            self._busy = not self._stopping
            return not self._stopping

    def _take(self) -> list[_Job]:
        """The jobs that enter a session now: the next whose session has room, and others of its kind and length."""
        with self._changed:
            taken: list[_Job] = []
            rows, seconds = 0, 0.0
            for job in list(self._waiting):
                if not taken:
                    running = self._running.get(job.begin)
                    rows, seconds = (len(running.jobs), running.seconds) if running else (0, 0.0)
                elif job.begin != taken[0].begin or not _are_alike(job.seconds, taken[0].seconds):
                    continue
                if rows >= job.most or (rows and seconds + job.seconds > self._most_s):
                    continue
                self._waiting.remove(job)
                if job.future.set_running_or_notify_cancel():  # False: cancelled a moment ago
                    taken.append(job)
                    job.owner.enters(job.since)
                    job.future.add_done_callback(job.owner.leaves)
                    rows, seconds = rows + 1, seconds + job.seconds
            if taken:
                self._clock = max(self._clock, taken[0].turn)
            return taken

    def _enter(self, jobs: list[_Job]) -> None:
        """The jobs join their session."""
        if not jobs:
            return
        begin = jobs[0].begin
        running = self._running.get(begin) or _Running(begin())
        failure = _attempt(jobs, lambda: running.session.add([job.item for job in jobs]))
        if failure is None:
            running.jobs += jobs
            self._running[begin] = running
            for job in running.jobs:
                job.owner.ran_beside(len(running.jobs))
        else:
            self._each_alone(jobs, failure)

    def _advance(self, begin: Callable[[], Together]) -> None:
        """One step of a session: who ended is answered, whom nobody waits for leaves."""
        running = self._running[begin]
        ended: list[tuple[Any, Any]] = []
        self.tally.steps[len(running.jobs)] += 1
        failure = _attempt(running.jobs, lambda: ended.extend(running.session.step()))
        if failure is not None:
            del self._running[begin]
            self._each_alone(running.jobs, failure)
            return
        results = {id(item): result for item, result in ended}
        for job in list(running.jobs):
            if id(job.item) in results:
                running.jobs.remove(job)
                job.future.set_result(results[id(job.item)])
            elif job.gone:
                running.jobs.remove(job)
                running.session.drop(job.item)
        if not running.jobs:
            del self._running[begin]

    def _each_alone(self, jobs: list[_Job], failure: AsrError) -> None:
        """What failed together, one by one; what failed alone has failed."""
        if len(jobs) == 1:
            jobs[0].future.set_exception(failure)
            return
        _log.warning("%d that ran together failed (%s); running each alone", len(jobs), type(failure).__name__)
        self.tally.retries += len(jobs)
        if isinstance(failure, OutOfMemory):
            self.tally.splits += 1
            self._most_s = max(sum(job.seconds for job in jobs) / 2, _LEAST_TOGETHER_S)
        for job in jobs:
            results: list[Any] = []
            cause = None if job.gone else _attempt([job], lambda job=job, results=results: results.append(_alone(job)))  # type: ignore[misc]
            if results:
                job.future.set_result(results[0])
            else:
                job.future.set_exception(cause or EngineFailure())


def _are_alike(seconds: float, other: float) -> bool:
    return max(seconds, other) <= _LIKE_LENGTH * max(min(seconds, other), 0.5)


def _alone(job: _Job) -> Any:
    """A job's result from a session of its own."""
    session = job.begin()
    session.add([job.item])
    while True:
        for _, result in session.step():
            return result


def _attempt(jobs: Sequence[_Job], work: Callable[[], None]) -> AsrError | None:
    """Do it once. What it raised is not kept: its traceback would hold the work's memory during the retries."""
    try:
        work()
    except Exception as error:  # noqa: BLE001 - models and drivers raise whatever they like; nothing may end this thread
        return _cause(error, jobs)
    return None


def _cause(error: Exception, jobs: Sequence[_Job]) -> AsrError:
    if isinstance(error, AsrError):
        return error
    requests = ", ".join(sorted({job.owner.request for job in jobs}))
    _log.error("the model failed [request %s]", requests, exc_info=error)
    # torch.OutOfMemoryError is a RuntimeError; the CPU allocator's has no class of its own
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "allocate memory" in str(error):
        return OutOfMemory()
    return EngineFailure()
