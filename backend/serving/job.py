"""One job of the scheduler, and the session in which jobs run together.

Rules: a job is answered at most once: with its result, with an error, or not at all if its caller has cancelled it.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from backend.errors import AsrError
from backend.process.request_stats import RequestStats
from backend.serving.session_kind import ScheduledSession, SessionKey, SessionKind


@dataclass(eq=False)
class Job:
    """One item with `audio_s` seconds of audio, for a session of `kind`. `owner`: the stats of its request.

    `finish_tag`: its place in the fair queue. `queued_at`: when it was queued last, by time.monotonic. `cancelled`: its
    caller no longer waits. `retry_alone`: it has failed once, so it runs when no other job does. `offered`: to
    preparation, which looks at each job once. `is_final`: its sound will not be given to the model again.
    """

    kind: SessionKind[Any, Any]
    item: Any
    audio_s: float
    owner: RequestStats
    future: Future[Any] = field(default_factory=Future)
    finish_tag: float = 0.0
    queued_at: float = field(default_factory=time.monotonic)
    cancelled: bool = False
    retry_alone: bool = False
    offered: bool = False
    is_final: bool = True
    key: SessionKey = field(init=False)

    def __post_init__(self) -> None:
        self.key = self.kind.key

    def start(self) -> bool:
        """Mark the job as running, for its future and in its request's stats; False if it was just cancelled."""
        if not self.future.running():  # a job that was queued again is still marked
            if not self.future.set_running_or_notify_cancel():
                return False
            self.future.add_done_callback(self.owner.passage_ended)
        self.owner.passage_started(self.queued_at)
        return True

    def answer(self, result: Any) -> None:
        with suppress(InvalidStateError):  # Scheduler.fail was faster
            self.future.set_result(result)

    def fail(self, error: AsrError) -> None:
        with suppress(InvalidStateError):
            self.future.set_exception(error)


@dataclass(eq=False)
class RunningSession:
    """A session and the jobs in it. `free_since`: since when a place has been free while a job waits for it."""

    kind: SessionKind[Any, Any]
    session: ScheduledSession[Any, Any]
    jobs: list[Job] = field(default_factory=list)
    free_since: float | None = None

    @property
    def audio_s(self) -> float:
        return sum(job.audio_s for job in self.jobs)

    @property
    def occupancy(self) -> float:
        """The share of its places that are taken, 0 to 1; those for live jobs are not counted."""
        return min(len(self.jobs) / self.kind.max_batch, 1.0)

    @property
    def has_live(self) -> bool:
        return any(job.kind.is_live for job in self.jobs)

    def free_places(self, *, live: bool) -> int:
        """How many jobs may join: of files, or live ones, which may take every place."""
        free = self.kind.max_batch + self.kind.live_places - len(self.jobs)
        return free if live else min(free, self.kind.max_batch - sum(not job.kind.is_live for job in self.jobs))
