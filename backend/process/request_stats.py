"""Statistics of one request and totals over all of them: the numbers behind the request's log line and the metrics.

- They hold numbers and the backend's own names, never text, a prompt or a path of a client. (A warning may name the
  operator's aligner.)
- Each room adds what it alone knows to the RequestStats that it is given, and reads nothing from it.
- Another thread may read a number that is a moment old.
"""

from __future__ import annotations

import os
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

from backend.process.histogram import Histogram
from backend.process.request_warning import kinds_of

Stage = Literal["decode", "vad", "queue", "infer", "align"]
STAGES: tuple[Stage, ...] = ("decode", "vad", "queue", "infer", "align")

# Upper bounds of the times to the first delta by which calls are counted, in seconds.
FIRST_DELTA_BOUNDS_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0)
# Of the times that decodes of live windows took, likewise.
LIVE_STEP_BOUNDS_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)

# Upper bounds of the times by which all calls are counted, in seconds: Health has 1 s, a recording of hours an hour.
REQUEST_BOUNDS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
QUEUE_BOUNDS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)

OK = "ok"
QUIET = "Quiet"  # a live stream that was ended because its client sent nothing: as good as ok
CANCELLED, DEADLINE_EXCEEDED = "Cancelled", "DeadlineExceeded"  # caused by the client, so not counted as rejections
# By the code. What is missing was refused: for the request, the options, the token, or for want of room.
_OUTCOMES = {
    "OK": "ok", "CANCELLED": "cancelled", "DEADLINE_EXCEEDED": "cancelled", "INTERNAL": "failed", "UNKNOWN": "failed",
}  # fmt: skip
OUTCOMES = ("ok", "refused", "cancelled", "failed")


def new_request_id() -> str:
    """Twelve random hexadecimal digits."""
    return os.urandom(6).hex()


@dataclass(eq=False)
class RequestStats:
    """Statistics of one request. Times are wall-clock seconds.

    `infer` and `align` exclude the time in which all of the request's passages waited for the model: that is `queue`.
    `code`: the name of its gRPC status; of a load that is refused, which is answered OK, that of its error. `finish`:
    "ok", or the name of the error that ended the request. `refusal`: the kind of a recording's refusal, one of
    audio/decoding/causes. `batch_rows`: the largest batch in which a passage of the request ran. Of a stream: `deltas`
    that were sent, `first_delta_s` from the call to the first of them, `rewrites`, the passages of which a part had
    been sent when they were recognised again. Of a live stream: `steps`, the decodes of windows that grew, by the time
    that they took, `utterances`, the seconds that its sound was `behind_s` at most, and
    `lags_s`, of each word from its sound's arrival to its departure.
    """

    request: str = field(default_factory=new_request_id)
    method: str = ""
    code: str = "OK"
    finish: str = OK
    total_s: float = 0.0
    audio_s: float = 0.0
    stage_s: dict[Stage, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    batch_rows: int = 0
    language: str = ""
    segments: int = 0
    warnings: tuple[str, ...] = ()
    refusal: str = ""
    deltas: int = 0
    first_delta_s: float = 0.0
    rewrites: int = 0
    retry_after_s: int = 0
    steps: Histogram = field(default_factory=lambda: Histogram(LIVE_STEP_BOUNDS_S))
    utterances: int = 0
    behind_s: float = 0.0
    lags_s: array[float] = field(default_factory=lambda: array("f"))
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    started: float = field(init=False, repr=False)
    _running_passages: int = field(default=0, repr=False)
    _idle_since: float = field(default=0.0, repr=False)

    def __post_init__(self) -> None:
        self.started = self.clock()

    @contextmanager
    def measure(self, stage: Stage) -> Iterator[None]:
        """Add the time spent inside to `stage`, without what was added to `queue` meanwhile."""
        started, queue_s = self.clock(), self.stage_s["queue"]
        try:
            yield
        finally:
            queued_s = self.stage_s["queue"] - queue_s
            self.stage_s[stage] += self.clock() - started - queued_s

    def record_wait(self, since: float) -> None:
        """A passage of the request has waited for the model since then.

        Time counts once, however many passages wait, and not while another passage of the request runs.
        """
        if not self._running_passages:
            now = self.clock()
            self.stage_s["queue"] += now - max(since, self._idle_since)
            self._idle_since = now

    def passage_started(self, waiting_since: float) -> None:
        """A passage, which has waited since then, starts to run."""
        self.record_wait(waiting_since)
        self._running_passages += 1

    def passage_ended(self, _: object = None) -> None:
        """A passage has stopped running. The argument lets it be a future's callback."""
        self._running_passages -= 1
        if not self._running_passages:
            self._idle_since = self.clock()

    def record_batch(self, rows: int) -> None:
        """A passage of the request runs in a batch of `rows`."""
        self.batch_rows = max(self.batch_rows, rows)

    def record_delta(self) -> None:
        """A delta is sent."""
        self.deltas += 1
        if self.deltas == 1:
            self.first_delta_s = self.clock() - self.started

    def record_step(self, seconds: float) -> None:
        """A window of a live stream has been decoded, in so many seconds, those that it waited included."""
        self.steps.observe((), seconds)

    def log_line(self, *, transcription: bool, stream: bool = False, live: bool = False) -> dict[str, Any]:
        """Keys and values of the log line; the arguments add those that only some methods have."""
        shared = {
            "request": self.request,
            "method": self.method,
            "code": self.code,
            "finish": self.finish,
            "total_ms": _ms(self.total_s),
        }
        if not transcription:
            return shared
        return {
            **shared,
            "audio_s": round(self.audio_s, 3),
            **{f"{stage}_ms": _ms(self.stage_s[stage]) for stage in STAGES},
            "batch": self.batch_rows,
            "language": self.language,
            "segments": self.segments,
            "warnings": list(self.warnings),
            "refusal": self.refusal,
            **(self._of_stream() if stream else {}),
            **(self._of_live() if live else {}),
        }

    def _of_stream(self) -> dict[str, Any]:
        return {"deltas": self.deltas, "first_delta_ms": _ms(self.first_delta_s), "rewrites": self.rewrites}

    def _of_live(self) -> dict[str, Any]:
        return {
            "steps": self.steps.total,
            "utterances": self.utterances,
            "lag_p50_ms": _ms(_percentile(self.lags_s, 0.5)),
            "lag_p95_ms": _ms(_percentile(self.lags_s, 0.95)),
            "behind_s": round(self.behind_s, 1),
        }


def _percentile(values: Iterable[float], share: float) -> float:
    """The least of the values that so much of them does not exceed; 0 of none."""
    in_order = sorted(values)
    return in_order[min(int(share * len(in_order)), len(in_order) - 1)] if in_order else 0.0


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 1)


@dataclass
class Totals:
    """Sums over all requests since the process started."""

    requests: Counter[tuple[str, str]] = field(default_factory=Counter)  # by (method, code)
    rejections: Counter[str] = field(default_factory=Counter)  # by the error's name
    in_flight: Counter[str] = field(default_factory=Counter)  # by method
    audio_s: float = 0.0  # of recordings that were transcribed
    stage_s: dict[Stage, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    first_delta_s: Histogram = field(default_factory=lambda: Histogram(FIRST_DELTA_BOUNDS_S))  # by (method,)
    rewrites: int = 0
    request_s: Histogram = field(default_factory=lambda: Histogram(REQUEST_BOUNDS_S))  # by (method, outcome)
    queue_s: Histogram = field(default_factory=lambda: Histogram(QUEUE_BOUNDS_S))  # by (method,)
    warnings: Counter[str] = field(default_factory=Counter)  # by kind, one for each request that has it
    refused_recordings: Counter[str] = field(default_factory=Counter)  # by kind
    live_step_s: Histogram = field(default_factory=lambda: Histogram(LIVE_STEP_BOUNDS_S, [()]))

    def call_started(self, stats: RequestStats) -> None:
        self.in_flight[stats.method] += 1

    def call_ended(self, stats: RequestStats) -> None:
        self.in_flight[stats.method] -= 1
        self.requests[stats.method, stats.code] += 1
        self.request_s.observe((stats.method, _OUTCOMES.get(stats.code, "refused")), stats.total_s)
        if stats.audio_s:
            self.queue_s.observe((stats.method,), stats.stage_s["queue"])
        self.warnings.update({kind for warning in stats.warnings for kind in kinds_of(warning)})
        if stats.refusal:
            self.refused_recordings[stats.refusal] += 1
        if stats.finish in (OK, QUIET):
            self.audio_s += stats.audio_s
        elif stats.finish not in (CANCELLED, DEADLINE_EXCEEDED):
            self.rejections[stats.finish] += 1
        for stage in STAGES:
            self.stage_s[stage] += stats.stage_s[stage]
        self.rewrites += stats.rewrites
        self.live_step_s.add(stats.steps)
        if stats.deltas:
            self.first_delta_s.observe((stats.method,), stats.first_delta_s)


@dataclass
class EngineStats:
    """Sums over the work of the model thread since it started."""

    steps: Counter[int] = field(default_factory=Counter)  # by the batch's rows
    compute_s: float = 0.0  # time in which the model thread had work
    oom_events: int = 0  # memory ran out with several passages running: less audio runs together for a while
    retries: int = 0  # passages that failed in a batch and were run again alone


# The stats of the call being served. A context variable is grpc's own way from an interceptor to the method: every call
# has a context of its own, and threads that it awaits inherit it. wire/request_log.py sets it. Rooms below wire/ are
# given their stats as an argument.
_current: ContextVar[RequestStats] = ContextVar("stats")


def set_current_stats(stats: RequestStats) -> None:
    """Make `stats` those of the running call."""
    _current.set(stats)


def current_stats() -> RequestStats | None:
    """The stats of the running call; None outside of a call."""
    return _current.get(None)
