from __future__ import annotations

import math
from pathlib import Path

import pytest

from backend.process.machine.available_memory import AvailableMemory, available_memory, total_memory

GIB = 1 << 30


@pytest.fixture
def write(tmp_path: Path):
    """`write("proc/meminfo", text)` below a folder that stands for /."""

    def write(name: str, text: object) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")

    write("proc/meminfo", "MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\nSwapFree: 2097152 kB")  # 16, 8 and 2 GiB
    return write


@pytest.fixture
def found(tmp_path: Path):
    return lambda: available_memory(tmp_path / "proc", tmp_path / "sys/fs/cgroup")


def test_without_control_groups_it_is_the_machines(write, found) -> None:
    assert found() == AvailableMemory(8 * GIB, 10 * GIB)


def test_where_nothing_can_be_read_nothing_is_a_limit(tmp_path: Path) -> None:
    assert available_memory(tmp_path, tmp_path) == AvailableMemory(math.inf, math.inf)


def test_a_container_of_cgroup_v2_has_its_limit_less_its_use_without_the_page_cache(write, found) -> None:
    write("proc/self/cgroup", "0::/")
    write("sys/fs/cgroup/memory.max", 4 * GIB)
    write("sys/fs/cgroup/memory.current", 3 * GIB)
    write("sys/fs/cgroup/memory.stat", f"anon {GIB}\ninactive_file {GIB}\nactive_file {GIB // 2}")
    assert found() == AvailableMemory(2.5 * GIB, 4.5 * GIB)  # with all of the swap
    write("sys/fs/cgroup/memory.swap.max", GIB)
    write("sys/fs/cgroup/memory.swap.current", GIB // 2)
    assert found() == AvailableMemory(2.5 * GIB, 3 * GIB)
    write("sys/fs/cgroup/memory.swap.max", 0)
    assert found() == AvailableMemory(2.5 * GIB, 2.5 * GIB)
    write("sys/fs/cgroup/memory.max", "max")
    assert found().memory == 8 * GIB


@pytest.mark.parametrize("narrow", ["a", "a/b"])
def test_the_narrowest_level_of_the_hierarchy_counts(write, found, narrow: str) -> None:
    write("proc/self/cgroup", "0::/a/b")
    for level in ("a", "a/b"):
        write(f"sys/fs/cgroup/{level}/memory.max", GIB if level == narrow else 6 * GIB)
        write(f"sys/fs/cgroup/{level}/memory.current", 0)
    assert found().memory == GIB


def test_a_container_of_cgroup_v1_has_its_limit_also_where_its_path_is_the_hosts(write, found) -> None:
    write("proc/self/cgroup", "5:cpu,cpuacct:/docker/1234\n4:memory:/docker/1234\n0::/docker/1234")
    group = "sys/fs/cgroup/memory"
    write(f"{group}/memory.limit_in_bytes", 2 * GIB)
    write(f"{group}/memory.usage_in_bytes", 3 * GIB // 2)
    write(f"{group}/memory.stat", f"cache {GIB}\ntotal_inactive_file {GIB // 4}\ntotal_active_file {GIB // 4}")
    assert found() == AvailableMemory(GIB, 3 * GIB)
    write(f"{group}/memory.memsw.limit_in_bytes", 2 * GIB)  # no swap
    write(f"{group}/memory.memsw.usage_in_bytes", 3 * GIB // 2)
    assert found() == AvailableMemory(GIB, GIB)
    write(f"{group}/memory.limit_in_bytes", 9223372036854771712)  # none
    write(f"{group}/memory.memsw.limit_in_bytes", 9223372036854771712)
    assert found() == AvailableMemory(8 * GIB, 10 * GIB)


@pytest.mark.parametrize(
    ("group", "names"),
    [
        ("x", ("memory.max", "memory.current", "inactive_file", "active_file", "file_mapped")),
        ("memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", "total_active_file",
                    "total_mapped_file")),
    ],
    ids=["v2", "v1"],
)  # fmt: skip
def test_pages_of_files_that_programs_have_mapped_are_not_free(write, found, group: str, names: list[str]) -> None:
    limit, used, inactive, active, mapped = names
    write("proc/self/cgroup", "4:memory:/\n0::/x")
    write(f"sys/fs/cgroup/{group}/{limit}", 4 * GIB)
    write(f"sys/fs/cgroup/{group}/{used}", 3 * GIB)
    write(f"sys/fs/cgroup/{group}/memory.stat", f"{inactive} {GIB}\n{active} {GIB}\n{mapped} {GIB // 2}")
    assert found().memory == 2.5 * GIB
    write(f"sys/fs/cgroup/{group}/memory.stat", f"{inactive} {GIB}\n{active} 0\n{mapped} {2 * GIB}")
    assert found().memory == GIB  # mapped memory that is shared and no file


@pytest.mark.parametrize(
    ("group", "file"), [("0::/a/b", "a/memory.max"), ("4:memory:/a/b", "memory/a/memory.limit_in_bytes")]
)
def test_the_memory_of_all_is_the_machines_or_the_narrowest_groups(write, tmp_path, group: str, file: str) -> None:
    assert total_memory(tmp_path / "nowhere", tmp_path) == math.inf
    write("proc/self/cgroup", group)
    write(f"sys/fs/cgroup/{file}", "max" if "max" in file else 9223372036854771712)
    assert total_memory(tmp_path / "proc", tmp_path / "sys/fs/cgroup") == 16 * GIB
    write(f"sys/fs/cgroup/{file}", 3 * GIB)
    assert total_memory(tmp_path / "proc", tmp_path / "sys/fs/cgroup") == 3 * GIB


def test_a_group_that_is_over_its_limit_has_nothing_left(write, found) -> None:
    write("proc/self/cgroup", "0::/../x")
    write("sys/fs/cgroup/x/memory.max", GIB)
    write("sys/fs/cgroup/x/memory.current", 2 * GIB)
    assert found().memory == 0


def test_this_machine_answers() -> None:
    here = available_memory()
    assert 0 < here.memory <= here.with_swap
