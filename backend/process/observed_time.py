"""Time as its observer saw it: a process that was frozen and thawed (SIGSTOP, docker pause, a stopped VM) has not hung.

Clocks go on while a process is frozen, and all that it watches is usually frozen with it. So a watcher counts the time
between two of its own looks, and of a longer gap only what it would have slept.
"""

from __future__ import annotations

import time
from collections.abc import Callable

MAX_GAP_S = 1.0  # watchers look twice to ten times a second; on a busy machine they come late


class ObservedTime:
    """Seconds since the construction in which `elapsed_s` was called at least once in MAX_GAP_S."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()
        self._elapsed_s = 0.0

    def elapsed_s(self) -> float:
        now = self._clock()
        self._elapsed_s += min(now - self._last, MAX_GAP_S)
        self._last = now
        return self._elapsed_s
