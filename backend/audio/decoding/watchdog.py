"""The watchdog of a decoder process: whether it makes progress or is stalled, judged from outside.

- Progress is more sound in the store, or the file read further than ever before. Both are bounded by the file.
- A busy machine is not the file's fault. Without progress the process may compute or sleep for five seconds; time in
  which it waits for a core or a disk counts towards half a minute instead. Time in which nobody watched does not count.
- A file in which each step is slow and none hangs must not be cheap to send: sound may not take longer to decode than
  it lasts.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from backend.process.observed_time import MAX_GAP_S

_MAX_HANG_S = 5.0
_MAX_WAIT_S = 30.0  # a block of sound takes 10 ms: a process without a core for that long will not get one
_START_CPU_S = 5.0  # processor time before there is any sound
_WAITING_STATES = {"R", "D"}  # /proc's letters: running or waiting for a core; waiting for a disk


@dataclass(frozen=True)
class ProgressSample:
    """A decoder process at one moment. `at_s` is a monotonic clock, `cpu_s` all processor time of the process."""

    at_s: float
    cpu_s: float
    is_waiting: bool
    decoded_s: float
    read_bytes: int  # position in the file


class Watchdog:
    """Watches one job, from its first progress sample on."""

    def __init__(self, first: ProgressSample) -> None:
        self._first = first
        self._last = first
        self._waited_s = 0.0  # since the last progress
        self._hung_s = 0.0
        self._furthest_bytes = first.read_bytes

    def is_stalled(self, sample: ProgressSample) -> bool:
        """Whether the process must be killed. Call it a few times a second, with samples in order."""
        if sample.decoded_s > self._last.decoded_s or sample.read_bytes > self._furthest_bytes:
            self._waited_s = self._hung_s = 0.0
            self._furthest_bytes = max(self._furthest_bytes, sample.read_bytes)
        else:
            computed_s, passed_s = sample.cpu_s - self._last.cpu_s, min(sample.at_s - self._last.at_s, MAX_GAP_S)
            self._hung_s += computed_s if sample.is_waiting else passed_s
            self._waited_s += passed_s
        self._last = sample
        return (
            self._hung_s > _MAX_HANG_S
            or self._waited_s > _MAX_WAIT_S
            or sample.cpu_s - self._first.cpu_s > _START_CPU_S + sample.decoded_s
        )


@dataclass(frozen=True)
class ProcessCounters:
    """What the kernel counts for a process."""

    is_waiting: bool
    cpu_s: float
    resident_bytes: int


def process_counters(pid: int) -> ProcessCounters:
    """The counters of a process of ours. Without /proc it counts as waiting, so only the clock can stop it."""
    try:
        # after the name, which is in brackets and may hold anything: state is field 3, utime 14, stime 15, rss 24
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ProcessCounters(True, 0.0, 0)
    ticks = int(fields[11]) + int(fields[12])
    resident_bytes = int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
    return ProcessCounters(fields[0] in _WAITING_STATES, ticks / os.sysconf("SC_CLK_TCK"), resident_bytes)


def sample_progress(pid: int, *, decoded_s: float, read_bytes: int) -> ProgressSample:
    counters = process_counters(pid)
    return ProgressSample(time.monotonic(), counters.cpu_s, counters.is_waiting, decoded_s, read_bytes)
