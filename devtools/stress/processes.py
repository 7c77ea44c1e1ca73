"""What a server and its children hold, read from /proc: memory, descriptors, children. Linux only.

Memory of the tree is a sum over its processes, so pages that they share count more than once: an upper bound, which is
what a limit is held against. A peak is the greater of two: the sum of what the kernel has kept for each process that
lives (VmHWM, forgotten on request), and the sum seen at any one time, which has the children that did not live on.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_SAMPLED_EVERY_S = 0.01
MIB = 1 << 20


def children(pid: int) -> list[int]:
    """Of the process, and theirs; none if it has gone."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found += map(int, (task / "children").read_text().split())
    return [*found, *(deeper for child in found for deeper in children(child))]


def resident(pid: int) -> int:
    """Bytes of the process and its children."""
    return sum(_status(each, "VmRSS") for each in (pid, *children(pid)))


def descriptors(pid: int) -> int:
    """Of the process alone. Raises OSError when it has gone."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def next_descriptor(pid: int) -> int:
    """The number above those in use, more or less: what a limit must be for nothing more to be opened."""
    return max(int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()) + 1


def address_space(pid: int) -> int:
    return _status(pid, "VmSize")


def is_alive(pid: int) -> bool:
    """It runs, or sleeps; what has ended and was not waited for yet does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def _status(pid: int, name: str) -> int:
    """Bytes; 0 if the process has gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return 0


class Cost:
    """`with Cost(pid) as cost:` watches a tree; `cost.since_before()` is what it took at most, in bytes, beyond what it
    held when the last `forget` was called (at the start: when the block was entered)."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._before = self._most = 0

    def __enter__(self) -> Cost:
        self.forget()
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self._thread.join()

    def forget(self) -> None:
        for pid in (self._pid, *children(self._pid)):
            with contextlib.suppress(OSError):
                Path(f"/proc/{pid}/clear_refs").write_text("5")
        self._before = self._most = resident(self._pid)

    def since_before(self) -> int:
        kept = sum(_status(pid, "VmHWM") for pid in (self._pid, *children(self._pid)))
        return max(kept, self._most) - self._before

    def _sample(self) -> None:
        while not self._ended.wait(_SAMPLED_EVERY_S):
            self._most = max(self._most, resident(self._pid))


def slope(done: Sequence[int], held: Sequence[int]) -> float:
    """Bytes for one request more, by least squares over the second half."""
    half = len(done) // 2
    return float(np.polyfit(done[half:], held[half:], 1)[0])


def wait_until_gone(pids: Sequence[int], patience_s: float) -> list[int]:
    """Those that are still there after so long."""
    until = time.monotonic() + patience_s
    while (left := [pid for pid in pids if is_alive(pid)]) and time.monotonic() < until:
        time.sleep(_SAMPLED_EVERY_S)
    return left
