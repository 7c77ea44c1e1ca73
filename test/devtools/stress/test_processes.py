"""Reading what processes hold."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from devtools.stress import processes
from devtools.stress.processes import MIB, Cost, slope

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads /proc")

HOLDS = "held = bytes(range(256)) * (1 << 18); print('held', flush=True); input()"  # 64 MiB


def test_the_slope_is_of_the_second_half() -> None:
    done = list(range(40))
    held = [min(number, 20) * 1000 + max(number - 20, 0) * 7 for number in done]
    assert slope(done, held) == pytest.approx(7, rel=0.1)


def test_the_cost_of_a_child_counts_and_what_was_before_does_not() -> None:
    with Cost(os.getpid()) as cost:
        child = subprocess.Popen([sys.executable, "-c", HOLDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        with child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"held\n"
            assert child.pid in processes.children(os.getpid())
            assert processes.is_alive(child.pid)
            assert cost.since_before() > 60 * MIB
            cost.forget()
            assert cost.since_before() < 30 * MIB
            child.communicate(b"\n")
    assert not processes.is_alive(child.pid)
    assert processes.wait_until_gone([child.pid], 1.0) == []


def test_what_still_runs_is_named() -> None:
    began = time.monotonic()
    assert processes.wait_until_gone([os.getpid()], 0.05) == [os.getpid()]
    assert time.monotonic() - began < 5
