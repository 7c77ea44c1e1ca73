"""Memory, descriptors and children of real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from devtools import procfs
from devtools.procfs import MIB, PeakMemory

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs /proc")

ALLOCATES = "block = bytes(range(256)) * (1 << 18); print('allocated', flush=True); input()"  # 64 MiB


def test_the_memory_of_a_child_counts_and_earlier_memory_does_not() -> None:
    with PeakMemory(os.getpid(), with_children=True) as peak:
        child = subprocess.Popen([sys.executable, "-c", ALLOCATES], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        with child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"allocated\n"
            assert child.pid in procfs.children(os.getpid())
            assert procfs.is_alive(child.pid)
            assert procfs.tree_memory(os.getpid()).resident > procfs.memory(os.getpid()).resident + 60 * MIB
            assert peak.growth_bytes() > 60 * MIB
            peak.reset()
            assert peak.growth_bytes() < 30 * MIB
            child.communicate(b"\n")
    assert not procfs.is_alive(child.pid)
    assert procfs.wait_until_ended([child.pid], 1.0) == []
    assert procfs.children(child.pid) == []
    assert procfs.peak_resident_bytes(child.pid) == 0
    assert procfs.cpu_s(child.pid) == 0
    with pytest.raises(psutil.NoSuchProcess):
        procfs.descriptors(child.pid)


def test_the_peak_is_of_the_time_between() -> None:
    before = bytearray(os.urandom(1 << 20) * 96)
    del before
    with PeakMemory(os.getpid()) as peak:
        block = bytearray(os.urandom(1 << 20) * 32)
        found = peak.memory()
    now = procfs.memory(os.getpid())
    assert now.anonymous <= found.anonymous + len(block)
    assert now.resident < found.resident + (16 << 20)
    assert found.above(found) == (0, 0)


def test_the_kernels_peak_is_at_least_what_is_resident() -> None:
    assert procfs.peak_resident_bytes(os.getpid()) > 20 * MIB
    assert procfs.address_space_bytes(os.getpid()) >= procfs.memory(os.getpid()).resident


def test_a_process_that_still_runs_is_named_after_the_timeout() -> None:
    began = time.monotonic()
    assert procfs.wait_until_ended([os.getpid()], 0.05) == [os.getpid()]
    assert time.monotonic() - began < 5


def test_an_open_file_is_a_descriptor() -> None:
    before = procfs.descriptors(os.getpid())
    with Path("/dev/null").open() as opened:
        assert procfs.descriptors(os.getpid()) == before + 1
        assert procfs.next_descriptor(os.getpid()) > opened.fileno()
