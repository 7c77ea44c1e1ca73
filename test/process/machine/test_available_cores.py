from __future__ import annotations

from pathlib import Path

import pytest

from backend.process.machine.available_cores import available_cores, bound_cores


@pytest.fixture
def write(tmp_path: Path):
    def write(name: str, text: str) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")

    return write


@pytest.fixture
def cores(tmp_path: Path):
    return lambda bound=8: available_cores(bound, tmp_path / "proc", tmp_path / "cgroup")


def test_without_a_quota_it_is_what_the_process_is_bound_to(cores) -> None:
    assert cores(3) == 3
    assert available_cores() <= bound_cores()


def test_the_narrowest_quota_of_cgroup_v2_counts(write, cores) -> None:
    write("proc/self/cgroup", "0::/a/b")
    write("cgroup/a/cpu.max", "150000 100000")
    write("cgroup/a/b/cpu.max", "max 100000")
    assert cores() == 1.5


def test_a_quota_of_cgroup_v1_counts_and_minus_one_is_none(write, cores) -> None:
    write("proc/self/cgroup", "3:cpu,cpuacct:/docker/x")
    write("cgroup/cpu/cpu.cfs_quota_us", "200000")
    write("cgroup/cpu/cpu.cfs_period_us", "100000")
    assert cores() == 2
    write("cgroup/cpu/cpu.cfs_quota_us", "-1")
    assert cores() == 8
