"""How much memory a process holds, by /proc/PID/status; Linux only.

Two figures, because weights that are read through a mapping of their file count as the process's until they are
dropped, though the system takes them back at will: `resident` has them, `anonymous` has not. The kernel keeps the peak
of the first itself (VmHWM) and forgets it on request; the peak of the second is the highest of samples 20 ms apart.
"""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

_SAMPLED_EVERY_S = 0.02


class Memory(NamedTuple):
    """Bytes."""

    resident: int
    anonymous: int

    def above(self, floor: Memory) -> Memory:
        return Memory(self.resident - floor.resident, self.anonymous - floor.anonymous)


def now(pid: int) -> Memory:
    """What the process holds. Raises OSError when it has gone."""
    status = _status(pid)
    return Memory(status["VmRSS"], status["RssAnon"])


def peak_resident(pid: int) -> int:
    """The most it has held since it began, or since `forget_peak`."""
    return _status(pid)["VmHWM"]


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _status(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    sizes = [line.split() for line in lines if line.endswith(" kB")]
    return {name.rstrip(":"): int(size) * 1024 for name, size, _unit in sizes}


class Peak:
    """`with Peak(pid) as peak:` …, `peak.stop()`, and `peak.memory` is the most that the process held between."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._anonymous = 0
        self.memory = Memory(0, 0)

    def __enter__(self) -> Peak:
        forget_peak(self._pid)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def stop(self) -> None:
        """Reads the peak, while the process lives."""
        self._ended.set()
        self._thread.join()
        self.memory = Memory(peak_resident(self._pid), max(self._anonymous, now(self._pid).anonymous))

    def _sample(self) -> None:
        with contextlib.suppress(OSError, KeyError):  # it has gone, or is going
            while not self._ended.wait(_SAMPLED_EVERY_S):
                self._anonymous = max(self._anonymous, now(self._pid).anonymous)
