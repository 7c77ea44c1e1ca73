"""Whether a child that decodes gets on, judged from outside, or is lost in its file.

- Getting on is more sound in the store, or the file read further than ever before. Both are bounded by the file.
- A busy machine is no fault of the file's. The five seconds without progress that are allowed are the child's own: what
  it computes, or sleeps. What it waits for a core or a disk counts towards half a minute.
- A file in which every step is slow but none hangs must not be cheap to send: no sound takes longer than it lasts.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

_LONGEST_HANG_S = 5.0
_LONGEST_WAIT_S = 30.0  # a block of sound takes 10 ms: who gets no core for that long has been forgotten
_START_S = 5.0  # of processor time, before there is any sound
_WAITING = {"R", "D"}  # for a core (or it has one), for a disk


@dataclass(frozen=True)
class Look:
    """A child at one moment. `at_s` is a clock that only goes on, `cpu_s` all the processor time that it has had."""

    at_s: float
    cpu_s: float
    is_waiting: bool
    decoded_s: float
    read: int  # bytes of the file, counted from its start


class Watchdog:
    """One job's progress, from the first look at it on."""

    def __init__(self, first: Look) -> None:
        self._first = first
        self._last = first
        self._progress_at_s = first.at_s
        self._hung_s = 0.0
        self._furthest = first.read

    def is_lost(self, look: Look) -> bool:
        """Whether the child is to be given up. To be asked a few times a second."""
        if look.decoded_s > self._last.decoded_s or look.read > self._furthest:
            self._progress_at_s, self._hung_s = look.at_s, 0.0
            self._furthest = max(self._furthest, look.read)
        else:
            computed_s, passed_s = look.cpu_s - self._last.cpu_s, look.at_s - self._last.at_s
            self._hung_s += computed_s if look.is_waiting else passed_s
        self._last = look
        return (
            self._hung_s > _LONGEST_HANG_S
            or look.at_s - self._progress_at_s > _LONGEST_WAIT_S
            or look.cpu_s - self._first.cpu_s > _START_S + look.decoded_s
        )


@dataclass(frozen=True)
class Vitals:
    """What the kernel says of a process."""

    is_waiting: bool
    cpu_s: float
    resident: int  # bytes


def vitals(pid: int) -> Vitals:
    """Of a process of ours. Where there is no /proc it counts as waiting: then only the clock is left to judge by."""
    try:
        # after the name, which is in brackets and may hold anything: state is field 3, utime 14, stime 15, rss 24
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return Vitals(True, 0.0, 0)
    ticks = int(fields[11]) + int(fields[12])
    return Vitals(fields[0] in _WAITING, ticks / os.sysconf("SC_CLK_TCK"), int(fields[21]) * os.sysconf("SC_PAGE_SIZE"))


def look(pid: int, *, decoded_s: float, read: int) -> Look:
    now = vitals(pid)
    return Look(time.monotonic(), now.cpu_s, now.is_waiting, decoded_s, read)
