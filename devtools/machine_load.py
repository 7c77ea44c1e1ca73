"""What else the machine did while something was timed: processor time of processes that are not ours.

`with LoadWatch() as watch: ...; watch.load()`. Ours are this process and its descendants. The processors' time is the
whole machine's, also in a container; what a hypervisor gave to others (steal) counts as theirs.
"""

from __future__ import annotations

import contextlib
import time
from typing import NamedTuple

import psutil

# Share of the machine's processors that others used, from which a time is not to be trusted. Chosen, not measured: 5 %
# is an idle desktop's own work.
BUSY_SHARE = 0.1
_NAMED = 3


class Load(NamedTuple):
    """Processors that others used, on average, of `processors`."""

    others: float
    processors: int

    @property
    def is_busy(self) -> bool:
        return self.others > BUSY_SHARE * self.processors

    def __str__(self) -> str:
        state = "busy machine" if self.is_busy else "quiet machine"
        return f"{state}: others used {self.others:.1f} of {self.processors} processors"


class LoadWatch:
    """Measures from the entry of the block, or its construction, to each call of `load`."""

    def __init__(self) -> None:
        self._began = self._now()

    def __enter__(self) -> LoadWatch:
        self._began = self._now()
        return self

    def __exit__(self, *_error: object) -> None:
        return

    def load(self) -> Load:
        at_s, busy_s, own_s = self._now()
        began_s, busy_before_s, own_before_s = self._began
        others_s = (busy_s - busy_before_s) - (own_s - own_before_s)
        processors = psutil.cpu_count() or 1
        return Load(min(max(others_s / max(at_s - began_s, 1e-3), 0.0), float(processors)), processors)

    @staticmethod
    def _now() -> tuple[float, float, float]:
        return time.monotonic(), _busy_s(), _own_s()


def busiest(seconds: float = 1.0) -> list[tuple[str, float]]:
    """The other processes that use most of a processor within the next `seconds`: names and processors, at most 3."""
    ours = {process.pid for process in _own()}
    before = {process.pid: (process, _spent_s(process)) for process in psutil.process_iter() if process.pid not in ours}
    time.sleep(seconds)
    found = []
    for process, spent_s in before.values():
        with contextlib.suppress(psutil.Error):
            used = (_spent_s(process) - spent_s) / seconds
            if used >= 0.05:
                found.append((process.name(), used))
    return sorted(found, key=lambda each: -each[1])[:_NAMED]


def _busy_s() -> float:
    times = psutil.cpu_times()
    return float(sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq", "steal")))


def _own() -> list[psutil.Process]:
    this = psutil.Process()
    return [this, *this.children(recursive=True)]


def _own_s() -> float:
    """Of this process and its descendants, with those that have ended and were waited for."""
    return sum(_spent_s(process, with_ended=True) for process in _own())


def _spent_s(process: psutil.Process, *, with_ended: bool = False) -> float:
    """0 if the process has ended or is not ours to look at."""
    with contextlib.suppress(psutil.Error):
        times = process.cpu_times()
        ended = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
        return float(times.user + times.system + (ended if with_ended else 0.0))
    return 0.0
