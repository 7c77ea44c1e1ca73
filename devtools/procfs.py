"""Memory, descriptors and children of running processes, over psutil.

Memory of a process tree is the sum over its processes: an upper bound, because shared pages count once for each.
Functions of one process raise psutil.NoSuchProcess when it has ended, unless they say otherwise. The kernel's peak of
resident memory (VmHWM) and its reset (clear_refs) come from /proc: 0 and without effect where there is none.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import psutil

MIB = 1 << 20
INSPECTABLE = {"QWEN_ASR_INSPECTABLE": "true"}  # in the environment of a server that its own user may look into
_SAMPLE_S = 0.02
_SAMPLES_BETWEEN_LISTINGS = 5  # listing the children costs some ms: psutil visits every process of the machine


class Memory(NamedTuple):
    """Bytes. Weights read through a mapping of their file are resident but not anonymous: the kernel may drop them."""

    resident: int
    anonymous: int

    def above(self, floor: Memory) -> Memory:
        return Memory(self.resident - floor.resident, self.anonymous - floor.anonymous)


def children(pid: int) -> list[int]:
    """All descendants; none if the process has ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    return []


def memory(pid: int) -> Memory:
    sizes = psutil.Process(pid).memory_info()
    return Memory(sizes.rss, sizes.rss - getattr(sizes, "shared", 0))  # Linux alone counts `shared`


def tree_memory(pid: int) -> Memory:
    """Of the process and its descendants; zeros if it has ended."""
    return _sum((pid, *children(pid)))


def address_space_bytes(pid: int) -> int:
    return int(psutil.Process(pid).memory_info().vms)


def descriptors(pid: int) -> int:
    return psutil.Process(pid).num_fds()


def next_descriptor(pid: int) -> int:
    """One above the highest open descriptor. Linux only: psutil counts descriptors, it does not list them."""
    return max(int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()) + 1


def cpu_s(pid: int) -> float:
    """Seconds of processor time so far, user and system; 0 if the process has ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        times = psutil.Process(pid).cpu_times()
        return float(times.user + times.system)
    return 0.0


def is_alive(pid: int) -> bool:
    """Whether it runs or sleeps; a zombie does neither."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    return False


def wait_until_ended(pids: Iterable[int], timeout_s: float) -> list[int]:
    """The processes that are still alive after `timeout_s`; returns as soon as none is."""
    until = time.monotonic() + timeout_s
    left = list(filter(is_alive, pids))
    while left and time.monotonic() < until:
        time.sleep(_SAMPLE_S)
        left = list(filter(is_alive, left))
    return left


def peak_resident_bytes(pid: int) -> int:
    """The most resident memory since the process started or `reset_peak`; 0 if it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def reset_peak(pid: int) -> None:
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")


class PeakMemory:
    """The peak of a process, or of its tree with `with_children`, while the block runs.

    `with PeakMemory(pid) as peak: ...; peak.memory()` while the process lives. The resident peak is the kernel's own or
    the highest sample, whichever is greater: only the samples have the children that ended. The anonymous peak is
    sampled, every 20 ms.
    """

    def __init__(self, pid: int, *, with_children: bool = False) -> None:
        self._pid = pid
        self._with_children = with_children
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._highest = Memory(0, 0)
        self.before = Memory(0, 0)  # when the block was entered, or at the last `reset`

    def __enter__(self) -> PeakMemory:
        self.reset()
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self._thread.join()

    def reset(self) -> None:
        pids = self._pids()
        for pid in pids:
            reset_peak(pid)
        self.before = self._highest = _sum(pids)

    def memory(self) -> Memory:
        """The peak since the last `reset`."""
        pids = self._pids()
        self._add(_sum(pids))
        return Memory(max(self._highest.resident, sum(map(peak_resident_bytes, pids))), self._highest.anonymous)

    def growth_bytes(self) -> int:
        """How far the resident peak is above `before`."""
        return self.memory().resident - self.before.resident

    def _pids(self) -> list[int]:
        return [self._pid, *(children(self._pid) if self._with_children else ())]

    def _add(self, sample: Memory) -> None:
        self._highest = Memory(*map(max, self._highest, sample))

    def _sample(self) -> None:
        pids: list[int] = []
        number = 0
        while not self._ended.wait(_SAMPLE_S):
            if number % _SAMPLES_BETWEEN_LISTINGS == 0:
                pids = self._pids()
            number += 1
            self._add(_sum(pids))


def _sum(pids: Iterable[int]) -> Memory:
    found = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append(memory(pid))
    return Memory(sum(each.resident for each in found), sum(each.anonymous for each in found))
