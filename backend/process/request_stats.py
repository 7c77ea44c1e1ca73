"""What a request cost, and what all of them came to: the numbers behind the request's log line and the metrics.

Rules: numbers and names of ours only, never text, prompt or path. Each room adds what it alone knows to the stats
that it is given, and reads nothing there. What is read from another thread may be a moment old.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

Stage = Literal["decode", "vad", "queue", "infer", "align"]
STAGES: tuple[Stage, ...] = ("decode", "vad", "queue", "infer", "align")

OK = "ok"
CANCELLED, TOO_LATE = "Cancelled", "DeadlineExceeded"  # the client's doing, not a rejection


def new_request_id() -> str:
    return os.urandom(6).hex()


@dataclass(eq=False)
class RequestStats:
    """One request's. Seconds are wall time; `infer` and `align` are without the waiting, which is in `queue`.

    `finish`: "ok", or the name of the error that ended it. `rows`: the most that ran together with one of its own.
    """

    request: str = field(default_factory=new_request_id)
    method: str = ""
    code: str = "OK"
    finish: str = OK
    total_s: float = 0.0
    audio_s: float = 0.0
    stage_s: dict[Stage, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    rows: int = 0
    language: str = ""
    segments: int = 0
    warnings: tuple[str, ...] = ()
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    _running: int = field(default=0, repr=False)  # of its passages
    _idle_since: float = field(default=0.0, repr=False)

    @contextmanager
    def spending(self, stage: Stage) -> Iterator[None]:
        """What is done inside is that stage's, but for the time in which all of it waited for the model."""
        began, waited_s = self.clock(), self.stage_s["queue"]
        try:
            yield
        finally:
            waited_s = self.stage_s["queue"] - waited_s
            self.stage_s[stage] += self.clock() - began - waited_s

    def waited(self, since: float) -> None:
        """One of its passages has waited since then. What waits beside others that wait or run costs nothing more."""
        if not self._running:
            now = self.clock()
            self.stage_s["queue"] += now - max(since, self._idle_since)
            self._idle_since = now

    def enters(self, since: float) -> None:
        """One of its passages, which has waited since then, begins to run."""
        self.waited(since)
        self._running += 1

    def leaves(self, _: object = None) -> None:
        """One of its passages has run."""
        self._running -= 1
        if not self._running:
            self._idle_since = self.clock()

    def ran_beside(self, rows: int) -> None:
        self.rows = max(self.rows, rows)

    def line(self, *, whole: bool) -> dict[str, Any]:
        """The log line; `whole` with what only a transcription has."""
        shared = {
            "request": self.request,
            "method": self.method,
            "code": self.code,
            "finish": self.finish,
            "total_ms": _ms(self.total_s),
        }
        if not whole:
            return shared
        return {
            **shared,
            "audio_s": round(self.audio_s, 3),
            **{f"{stage}_ms": _ms(self.stage_s[stage]) for stage in STAGES},
            "batch": self.rows,
            "language": self.language,
            "segments": self.segments,
            "warnings": list(self.warnings),
        }


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 1)


@dataclass
class Totals:
    """All requests since the process began."""

    requests: Counter[tuple[str, str]] = field(default_factory=Counter)  # by method and code
    rejections: Counter[str] = field(default_factory=Counter)  # by the error's name
    in_flight: Counter[str] = field(default_factory=Counter)  # by method
    audio_s: float = 0.0  # that was transcribed
    stage_s: dict[Stage, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    def open(self, stats: RequestStats) -> None:
        self.in_flight[stats.method] += 1

    def close(self, stats: RequestStats) -> None:
        self.in_flight[stats.method] -= 1
        self.requests[stats.method, stats.code] += 1
        if stats.finish == OK:
            self.audio_s += stats.audio_s
        elif stats.finish not in (CANCELLED, TOO_LATE):
            self.rejections[stats.finish] += 1
        for stage in STAGES:
            self.stage_s[stage] += stats.stage_s[stage]


@dataclass
class EngineStats:
    """What the model's thread has done since it began."""

    steps: Counter[int] = field(default_factory=Counter)  # by how many rows each was for
    compute_s: float = 0.0  # in which there was something to do
    oom_events: int = 0  # batches of several passages that ran out of memory, see serving/oom_backoff.py
    retries: int = 0  # passages that failed together with others, and were run again alone


# grpc's own way from an interceptor to the method: every call has a context of its own, and threads that it waits for
# inherit it. Set by wire/request_log.py; what is below the wire is given its stats by hand.
_current: ContextVar[RequestStats] = ContextVar("stats")


def begin(stats: RequestStats) -> None:
    """The call that runs has this stats."""
    _current.set(stats)


def current() -> RequestStats | None:
    """The stats of the call that runs, if one does."""
    return _current.get(None)
