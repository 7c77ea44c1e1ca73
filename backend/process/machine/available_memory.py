"""How much memory this process can still use: what the machine has left, and what its control groups leave of it.

Rules: a container's limit counts as well as the machine's memory, at every level of the hierarchy, for cgroup v1 and
v2. Pages of files are given back when memory is needed, so they count as free, unless they are mapped: those are the
libraries of running programs. What cannot be read sets no limit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_MAPPED_V1, _MAPPED_V2 = "total_mapped_file", "file_mapped"
PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class AvailableMemory:
    """Bytes; infinite where nothing says how many. `memory`: without swapping. `with_swap`: before the kernel kills."""

    memory: float = math.inf
    with_swap: float = math.inf


def available_memory(proc: Path = PROC, cgroups: Path = CGROUPS) -> AvailableMemory:
    """The least that the machine and any of this process's control groups leave."""
    meminfo = _table(proc / "meminfo", "MemAvailable:", "SwapFree:", unit=1024)
    swap = meminfo.get("SwapFree:", 0)
    memory = meminfo.get("MemAvailable:", math.inf)
    rooms = [(memory, memory + swap)]
    for group in control_groups(proc, cgroups / "memory", "memory"):  # v1: swap is counted together with memory
        cache = _table(group / "memory.stat", "total_inactive_file", "total_active_file", _MAPPED_V1)
        left = _left(group / "memory.limit_in_bytes", group / "memory.usage_in_bytes", cache)
        both = _left(group / "memory.memsw.limit_in_bytes", group / "memory.memsw.usage_in_bytes", cache)
        rooms.append((left, min(left + swap, both)))
    for group in control_groups(proc, cgroups, ""):  # v2
        left = _left(
            group / "memory.max",
            group / "memory.current",
            _table(group / "memory.stat", "inactive_file", "active_file", _MAPPED_V2),
        )
        rooms.append((left, left + min(swap, _left(group / "memory.swap.max", group / "memory.swap.current", {}))))
    return AvailableMemory(*(min(room) for room in zip(*rooms, strict=True)))


def total_memory(proc: Path = PROC, cgroups: Path = CGROUPS) -> float:
    """Bytes of the machine, or of the narrowest of this process's control groups; infinite where nothing says it."""
    machine = _table(proc / "meminfo", "MemTotal:", unit=1024).get("MemTotal:", math.inf)
    files = [group / "memory.limit_in_bytes" for group in control_groups(proc, cgroups / "memory", "memory")]
    files += [group / "memory.max" for group in control_groups(proc, cgroups, "")]
    return min([machine, *(_number(" ".join(read_lines(file))) for file in files)])


def control_groups(proc: Path, root: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's group and its parents for a v1 controller; "": for v2.

    In a container the path is often the host's and not there; then `root` is the container's own group.
    """
    for line in read_lines(proc / "self/cgroup"):
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controller in controllers.split(","):
            parts = [part for part in path.split("/") if part and part != ".."]
            for depth in range(len(parts), -1, -1):
                yield root.joinpath(*parts[:depth])


def _left(limit: Path, used: Path, cache: dict[str, int]) -> float:
    """Bytes below the limit, with the page cache counted as free; infinite where there is no limit."""
    mapped = sum(cache.pop(key, 0) for key in (_MAPPED_V1, _MAPPED_V2))  # shared memory, too, which is no page cache
    free_pages = max(0, sum(cache.values()) - mapped)
    most, in_use = (_number(" ".join(read_lines(file))) for file in (limit, used))
    return max(0.0, most - max(0, in_use - free_pages)) if math.isfinite(in_use) else math.inf


def _table(file: Path, *keys: str, unit: int = 1) -> dict[str, int]:
    """The file's lines `key number` with these keys."""
    rows = [line.split() for line in read_lines(file)]
    return {row[0]: int(row[1]) * unit for row in rows if len(row) > 1 and row[0] in keys and row[1].isdigit()}


def _number(text: str) -> float:
    return int(text) if text.isdigit() else math.inf  # v2 writes `max`; v1 a number larger than any memory


def read_lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
