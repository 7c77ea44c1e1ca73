"""Many requests -> the one thread that runs the models, in sessions that are joined between steps.

Rules: nothing waits for a batch to end: what waits joins the rows that run as soon as there is room; and nothing waits
for a batch to fill, unless the operator wants it. One job's failure is its own: what fails together is run again alone.
Every job is answered, whatever fails; where nothing more can come of any, `dead` says why.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import InvalidStateError
from contextlib import suppress
from math import inf
from typing import Any, TypeVar

from backend.errors import AsrError, EngineFailure, OutOfMemory
from backend.process.request_stats import EngineStats, RequestStats
from backend.serving.fair_queue import FairQueue, Job, Running
from backend.serving.faults import cause_of, is_lost_device
from backend.serving.one_shot import OneShotWork, ScheduledSession
from backend.serving.oom_backoff import OomBackoff
from backend.serving.throughput import Throughput

_log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")
Work = Callable[[Sequence[Item]], Sequence[Result]]

LOST = "the device was lost"


class Scheduler:
    """Owns the model thread. `submit` and `join` are for the event loop's thread."""

    def __init__(self) -> None:
        self._waiting = FairQueue()
        self._running: dict[Callable[[], ScheduledSession], Running] = {}
        self._taken: set[Job] = set()  # and not answered yet
        self._oom_backoff = OomBackoff()
        self.engine_stats = EngineStats()
        self.dead = ""  # why the engine will never answer again
        self._working_since: float | None = None  # the model thread, on what it does now
        self._throughput = Throughput()
        self._stopping = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        with self._changed:
            return self._working_since is not None or len(self._waiting) > 0

    @property
    def waiting(self) -> tuple[int, float]:
        """How many items wait, and how many seconds of audio they are."""
        with self._changed:
            return len(self._waiting), self._waiting.seconds

    @property
    def stalled_s(self) -> float:
        """For how long the model thread has been at the one step that it takes; 0 if it has nothing to do."""
        since = self._working_since
        return 0.0 if since is None else time.monotonic() - since

    def at_least_s(self, seconds: float) -> float:
        """How long so many seconds of audio take at the very least; 0 if that is not known yet."""
        return self._throughput.at_least_s(seconds)

    def forget_model(self) -> None:
        """There is another one: neither its speed nor what of it fits into memory is known. From any thread."""
        with self._changed:
            self._throughput.forget()
            self._oom_backoff.forget()

    async def submit(
        self,
        work: Work[Item, Result],
        item: Item,
        *,
        seconds: float,
        most: int,
        owner: RequestStats | None = None,
        max_prefill_s: float = inf,
    ) -> Result:
        """`work([..., item, ...])`'s result for `item`, done with at most `most - 1` others.

        `seconds` is the item's length of audio, `owner` the stats of the request that it is for. Raises OutOfMemory,
        EngineFailure, or the AsrError that `work` raised.
        """
        result: Result = await self.join(
            OneShotWork(work), item, seconds=seconds, most=most, owner=owner, max_prefill_s=max_prefill_s
        )
        return result

    async def join(
        self,
        begin: Callable[[], ScheduledSession],
        item: Any,
        *,
        seconds: float,
        most: int,
        owner: RequestStats | None = None,
        gather_s: float = 0.0,
        max_prefill_s: float = inf,
    ) -> Any:
        """What a session of `begin()`'s says of `item`, beside at most `most - 1` others. Raises as `submit` does.

        If the caller is cancelled, the item leaves its session at the next step. `gather_s`: how long a session that
        begins with it waits for others; `max_prefill_s`: of audio that enters it together.
        """
        job = Job(begin, item, seconds, most, owner or RequestStats(), gather_s, max_prefill_s)
        with self._changed:
            if self.dead:
                raise EngineFailure
            self._waiting.put(job)
            self._changed.notify()
        try:
            return await asyncio.wrap_future(job.future)
        except asyncio.CancelledError:
            job.gone = True
            with self._changed:
                self._waiting.remove(job)
            raise

    def stop(self) -> None:
        """End the thread after the step that it takes; what waits is cancelled, what runs has failed."""
        with self._changed:
            self._stopping = True
            for job in self._waiting.clear():
                if not job.future.cancel():
                    _refuse(job, EngineFailure())
            self._changed.notify()

    def fail(self, cause: str) -> None:
        """Nothing more will come of what waits or runs: answer it with EngineFailure, without the model thread."""
        with self._changed:
            self.dead = self.dead or cause
            self._stopping = True
            jobs = [*self._waiting.clear(), *self._taken]
        for job in jobs:
            _refuse(job, EngineFailure())

    def _run(self) -> None:
        try:
            while self._wait():
                began = time.monotonic()
                fullness = self._go_on()
                took_s = time.monotonic() - began
                self.engine_stats.compute_s += took_s
                self._throughput.worked(took_s, fullness)
        finally:
            if not self._stopping:
                self.dead = "its thread has ended"
            self._working_since = None
            for job in list(self._taken):
                _refuse(job, EngineFailure())

    def _wait(self) -> bool:
        """Until there is something to do; False when the scheduler stops."""
        with self._changed:
            if not self._running:
                self._working_since = None
                self._throughput.rests()
                self._changed.wait_for(lambda: len(self._waiting) or self._stopping)
                self._gather()
            self._working_since = time.monotonic()
            return not self._stopping

    def _gather(self) -> None:
        """Where the operator wants it, a session that begins waits a moment for more to begin with."""
        while not self._stopping and len(self._waiting):
            first = self._waiting.first
            left_s = first.since + first.gather_s - time.monotonic()
            if left_s <= 0 or len(self._waiting) >= first.most:
                return
            self._changed.wait(left_s)

    def _go_on(self) -> float:
        """How many of the places in a session were taken, from 0 to 1.

        A function of its own: while the thread waits, none of its variables may hold a model or sound.
        """
        with self._changed:
            jobs = self._waiting.take(self._running, self._oom_backoff.most_s)
            self._taken.update(jobs)
        self._enter(jobs)
        fullness = max((len(held.jobs) / held.jobs[0].most for held in self._running.values()), default=1.0)
        for begin in list(self._running):
            self._working_since = time.monotonic()
            self._advance(begin)
        return fullness

    def _enter(self, jobs: list[Job]) -> None:
        """The jobs join their session."""
        if not jobs:
            return
        begin = jobs[0].begin

        def add() -> None:
            running = self._running.get(begin) or Running(begin())
            running.session.add([job.item for job in jobs])
            running.jobs += jobs
            self._running[begin] = running
            for job in running.jobs:
                job.owner.record_batch(len(running.jobs))

        failure = self._attempt(jobs, add)
        if failure is not None:
            self._once_more(jobs, failure)

    def _advance(self, begin: Callable[[], ScheduledSession]) -> None:
        """One step of a session: who ended is answered, whom nobody waits for leaves."""
        running = self._running[begin]
        self.engine_stats.steps[len(running.jobs)] += 1

        def step() -> None:
            for job in [job for job in running.jobs if job.gone]:
                running.session.drop(job.item)
                self._leave(running, job)
            results = {id(item): result for item, result in (running.session.step() if running.jobs else ())}
            for job in [job for job in running.jobs if id(job.item) in results]:
                self._leave(running, job)
                _answer(job, results[id(job.item)])
                self._throughput.heard(job.seconds)
                self._oom_backoff.answered(job.seconds)

        failure = self._attempt(running.jobs, step)
        if failure is not None:
            del self._running[begin]
            self._once_more(running.jobs, failure)
        elif not running.jobs:
            del self._running[begin]

    def _leave(self, running: Running, job: Job) -> None:
        running.jobs.remove(job)
        self._taken.discard(job)

    def _once_more(self, jobs: list[Job], failure: AsrError) -> None:
        """What failed runs once more, each when nothing else does; what failed alone has failed."""
        held = [*jobs, *(job for running in self._running.values() for job in running.jobs)]
        together = len(held) > 1
        if isinstance(failure, OutOfMemory) and together:
            self.engine_stats.oom_events += 1
            self._oom_backoff.ran_out(sum(job.seconds for job in held))
        again = [job for job in jobs if not (job.alone or job.gone or self.dead)]
        if again:
            failed = f"{len(jobs)} of {len(held)} that ran together" if together else "one that ran alone"
            _log.warning("%s failed (%s); once more, each alone", failed, type(failure).__name__)
        with self._changed:
            self._taken.difference_update(jobs)
            self.engine_stats.retries += len(again) if together else 0
            for job in again:
                job.alone = True
                self._waiting.put_back(job)
        for job in set(jobs) - set(again):
            _refuse(job, failure)

    def _attempt(self, jobs: Sequence[Job], work: Callable[[], None]) -> AsrError | None:
        """Do it once. What it raised is not kept: its traceback would hold the work's memory during the retries."""
        try:
            work()
        except Exception as error:  # noqa: BLE001 - models and drivers raise whatever they like; nothing may end this thread
            cause = cause_of(error)
            if cause is not error:
                requests = ", ".join(sorted({job.owner.request for job in jobs}))
                _log.error("the model failed [request %s]", requests, exc_info=error)
            if is_lost_device(error):
                self.dead = LOST
            return cause
        return None


def _answer(job: Job, result: Any) -> None:
    with suppress(InvalidStateError):  # `fail` was faster
        job.future.set_result(result)


def _refuse(job: Job, failure: AsrError) -> None:
    with suppress(InvalidStateError):
        job.future.set_exception(failure)
