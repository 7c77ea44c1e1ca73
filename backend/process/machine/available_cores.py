"""How many cores this process may use: those that it is bound to, and what its control groups leave of their time."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from backend.process.machine.available_memory import CGROUPS, PROC, control_groups, read_lines


def available_cores(bound: int | None = None, proc: Path = PROC, cgroups: Path = CGROUPS) -> float:
    """The least of the cores that the process is bound to (`bound`; None: as the system says) and each group's quota.

    A quota need not be whole: 1.5 is one and a half cores' time.
    """
    return min([float(bound or bound_cores()), *_quotas(proc, cgroups)])


def bound_cores() -> int:
    """Cores that the process may run on, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS binds no process


def _quotas(proc: Path, cgroups: Path) -> Iterable[float]:
    for group in control_groups(proc, cgroups, ""):  # v2: "quota period", in microseconds, or "max period"
        yield from _share(" ".join(read_lines(group / "cpu.max")).split())
    for group in control_groups(proc, cgroups / "cpu", "cpu"):  # v1; a quota of -1 is none
        yield from _share([*read_lines(group / "cpu.cfs_quota_us"), *read_lines(group / "cpu.cfs_period_us")])


def _share(quota_and_period: list[str]) -> Iterable[float]:
    match quota_and_period:
        case [quota, period] if quota.isdigit() and period.isdigit() and int(period):
            yield int(quota) / int(period)
