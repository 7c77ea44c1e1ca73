"""The scheduler: continuous batching of all requests' jobs on the one thread that runs the models.

Rules: a waiting job joins its session between two steps, as soon as there is room; it waits neither for a batch to end
nor, unless the operator wants it, for one to fill. A failure stays with its job: jobs that failed together are retried
one at a time. Every job is answered, whatever fails; when no job can be answered any more, `dead` says why.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence

from backend.errors import AlignerUnavailable, AsrError, EngineFailure, OutOfMemory
from backend.process.request_stats import EngineStats, RequestStats
from backend.serving.fair_queue import FairQueue
from backend.serving.faults import cause_of, is_lost_device
from backend.serving.job import Job, RunningSession
from backend.serving.oom_backoff import OomBackoff
from backend.serving.preparation import Preparation
from backend.serving.session_kind import Item, Result, SessionKey, SessionKind
from backend.serving.throughput import Throughput

_log = logging.getLogger(__name__)

DEVICE_LOST = "the device was lost"


class Scheduler:
    """Owns the model thread. `submit` is for the event loop's thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds, for the rule by which jobs join in groups."""
        self._waiting = FairQueue(clock)
        self._running: dict[SessionKey, RunningSession] = {}
        self._started: set[Job] = set()  # taken from the queue and not answered yet
        self._oom_backoff = OomBackoff()
        self._throughput = Throughput()
        self.engine_stats = EngineStats()
        self.dead = ""  # why the engine will never answer again
        self._step_since: float | None = None  # when the step began that the model thread is at
        self._stopping = False
        lock = threading.RLock()  # guards the queue
        self._changed = threading.Condition(lock)  # notified when a job comes or the scheduler stops
        self._preparation = Preparation(self._waiting, lock)
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        with self._changed:
            return self._step_since is not None or len(self._waiting) > 0

    @property
    def waiting(self) -> tuple[int, float]:
        """How many jobs wait, and the seconds of their audio."""
        with self._changed:
            return len(self._waiting), self._waiting.audio_s

    @property
    def stalled_s(self) -> float:
        """How long the model thread has been at its current step; 0 if it has nothing to do."""
        since = self._step_since
        return 0.0 if since is None else time.monotonic() - since

    def min_duration_s(self, audio_s: float) -> float:
        """A lower bound on the time until so much audio of a new request, behind what waits, is answered; or 0."""
        with self._changed:
            before_s = self._waiting.audio_before_s(audio_s)
        return self._throughput.min_duration_s(before_s + audio_s)

    @property
    def backlog_s(self) -> float:
        """How long what waits will take at the best speed seen; 0 if nothing waits, or no speed is known yet."""
        return self._throughput.duration_s(self.waiting[1])

    def utterance_began(self) -> None:
        """Somebody speaks in a live stream: files are prefilled one passage at a time, so that captions wait less."""
        with self._changed:
            self._waiting.speaking += 1

    def utterance_ended(self) -> None:
        """The reverse of `utterance_began`."""
        with self._changed:
            self._waiting.speaking -= 1

    def forget_model(self) -> None:
        """Another model is loaded: reset what was learnt about the speed and the memory of the last one."""
        with self._changed:
            self._throughput.reset()
            self._oom_backoff.reset()

    async def submit(
        self,
        kind: SessionKind[Item, Result],
        item: Item,
        *,
        audio_s: float,
        owner: RequestStats | None = None,
        is_final: bool = True,
    ) -> Result:
        """The result of `item`, which has `audio_s` seconds of audio, from a session of `kind`.

        `owner`: the stats of the item's request; jobs without one are requests of their own. If the caller is
        cancelled, the item leaves its session at the next step. `is_final`: False if the same audio will come again, so
        that it counts once for the engine's speed. Raises OutOfMemory, EngineFailure, or the AsrError that
        the session raised.
        """
        job = Job(kind, item, audio_s, owner or RequestStats(), is_final=is_final)
        with self._changed:
            if self.dead:
                raise EngineFailure
            self._waiting.put(job)
            self._changed.notify()
            self._preparation.notify()
        try:
            result: Result = await asyncio.wrap_future(job.future)
        except asyncio.CancelledError:
            job.cancelled = True
            with self._changed:
                self._waiting.remove(job)
            raise
        return result

    def stop(self) -> None:
        """End the model thread after its current step: waiting jobs are cancelled, running jobs fail."""
        with self._changed:
            self._stopping = True
            for job in self._waiting.clear():
                if not job.future.cancel():
                    job.fail(EngineFailure())
            self._changed.notify()
            self._preparation.stop()

    def fail(self, cause: str) -> None:
        """Declare the engine dead: answer every job with EngineFailure now, without the model thread."""
        with self._changed:
            self.dead = self.dead or cause
            self._stopping = True
            jobs = [*self._waiting.clear(), *self._started]
        for job in jobs:
            job.fail(EngineFailure())

    def _run(self) -> None:
        try:
            while self._wait_for_jobs():
                began = time.monotonic()
                occupancy = self._step()
                compute_s = time.monotonic() - began
                self.engine_stats.compute_s += compute_s
                self._throughput.add_compute(compute_s, occupancy, sum(job.audio_s for job in self._started))
        finally:
            if not self._stopping:
                self.dead = "its thread has ended"
            self._step_since = None
            for job in list(self._started):
                job.fail(EngineFailure())

    def _wait_for_jobs(self) -> bool:
        """Wait until there is a job; False when the scheduler stops."""
        with self._changed:
            if not self._running:
                self._step_since = None
                self._throughput.end_window()
                self._changed.wait_for(lambda: len(self._waiting) or self._stopping)
                self._wait_for_batch()
            self._step_since = time.monotonic()
            return not self._stopping

    def _wait_for_batch(self) -> None:
        """Wait up to `batch_wait_s` for a new session's batch to fill."""
        while not self._stopping and len(self._waiting):
            first = self._waiting.first
            left_s = first.queued_at + first.kind.batch_wait_s - time.monotonic()
            if left_s <= 0 or len(self._waiting) >= first.kind.max_batch or self._waiting.has_live:
                return
            self._changed.wait(left_s)

    def _step(self) -> float:
        """Admit waiting jobs, then take one step of every session. Returns the occupancy of the fullest, 0 to 1.

        Not inlined in `_run`: while the thread waits, no local variable may hold a model or audio.
        """
        with self._changed:
            jobs = self._waiting.take(self._running, self._oom_backoff.max_audio_s)
            self._started.update(jobs)
            self._preparation.notify()
        self._admit(jobs)
        occupancy = max((session.occupancy for session in self._running.values()), default=1.0)
        for running in list(self._running.values()):
            self._step_since = time.monotonic()
            self._step_session(running)
        return occupancy

    def _admit(self, jobs: list[Job]) -> None:
        """Add the jobs, which have the same key, to their session."""
        if not jobs:
            return
        kind, key = jobs[0].kind, jobs[0].key

        def add() -> None:
            running = self._running.get(key) or RunningSession(kind, kind.open_session())
            running.session.add([job.item for job in jobs])
            running.jobs += jobs
            self._running[key] = running
            for job in running.jobs:
                job.owner.record_batch(len(running.jobs))

        failure = self._call_model(jobs, add)
        if failure is not None:
            self._retry_or_fail(jobs, failure)

    def _step_session(self, running: RunningSession) -> None:
        """Drop cancelled jobs, take one step, answer the jobs that ended."""
        self.engine_stats.steps[len(running.jobs)] += 1

        def step() -> None:
            for job in [job for job in running.jobs if job.cancelled]:
                running.session.drop(job.item)
                self._remove(running, job)
            results = {id(item): result for item, result in (running.session.step() if running.jobs else ())}
            for job in [job for job in running.jobs if id(job.item) in results]:
                self._remove(running, job)
                self._answer(job, results[id(job.item)])

        failure = self._call_model(running.jobs, step)
        if failure is not None or not running.jobs:
            del self._running[running.kind.key]
        if failure is not None:
            self._retry_or_fail(running.jobs, failure)

    def _answer(self, job: Job, result: object) -> None:
        if isinstance(result, AsrError):  # of this job alone, and not to be tried again
            job.fail(result)
            return
        job.answer(result)
        self._throughput.add_audio(job.audio_s if job.is_final else 0.0)
        self._oom_backoff.succeeded(job.audio_s)

    def _remove(self, running: RunningSession, job: Job) -> None:
        running.jobs.remove(job)
        self._started.discard(job)

    def _retry_or_fail(self, jobs: list[Job], failure: AsrError) -> None:
        """Queue jobs that failed for one retry, each alone; a job that failed in its retry has failed."""
        in_memory = [*jobs, *(job for running in self._running.values() for job in running.jobs)]
        together = len(in_memory) > 1
        if isinstance(failure, OutOfMemory) and together:
            self.engine_stats.oom_events += 1
            self._oom_backoff.out_of_memory(sum(job.audio_s for job in in_memory))
        lasts = isinstance(failure, AlignerUnavailable) and len(jobs) == 1  # its language's package is not installed
        retries = [job for job in jobs if not (job.retry_alone or job.cancelled or self.dead or lasts)]
        if retries:
            failed = f"{len(jobs)} of {len(in_memory)} that ran together" if together else "one that ran alone"
            _log.warning("%s failed (%s); once more, each alone", failed, type(failure).__name__)
        with self._changed:
            self._started.difference_update(jobs)
            self.engine_stats.retries += len(retries) if together else 0
            for job in retries:
                job.retry_alone = True
                self._waiting.requeue(job)
        for job in set(jobs) - set(retries):
            job.fail(failure)

    def _call_model(self, jobs: Sequence[Job], call: Callable[[], None]) -> AsrError | None:
        """Run `call` for the jobs. Returns the error that they are answered with, None if it succeeded.

        What `call` raised is not kept: its traceback would hold the call's memory during the retries.
        """
        try:
            call()
        except Exception as error:  # noqa: BLE001 - models and drivers raise anything; nothing may end this thread
            cause = cause_of(error)
            if cause is not error:
                requests = ", ".join(sorted({job.owner.request for job in jobs}))
                _log.error("the model failed [request %s]", requests, exc_info=error)
            if is_lost_device(error):
                self.dead = DEVICE_LOST
            return cause
        return None
