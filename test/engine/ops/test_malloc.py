"""Whether blocks that are freed between blocks that stay go back to the system, measured in a process of its own."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

GIVEN_BACK = """
import re, numpy as np
from backend.engine.ops.malloc import large_blocks_mmapped

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) // 1024

def given_back():
    blocks = [np.ones(4 << 20, np.uint8) for _ in range(64)]
    before = resident()
    del blocks[::2]
    return before - resident()

np.ones(31 << 20, np.uint8)  # and freed: from now on glibc takes blocks of this size from its heap
print(given_back())
with large_blocks_mmapped():
    print(given_back())
print(given_back())
blocks = [np.ones(4 << 20, np.uint8) for _ in range(64)]
del blocks[::2]
before = resident()
with large_blocks_mmapped():
    print(before - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc: the C library is not glibc")
def test_blocks_freed_during_a_load_go_back_at_once() -> None:
    ran = subprocess.run([sys.executable, "-c", GIVEN_BACK], check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    before, apart, after, left = map(int, ran.stdout.split())
    assert apart > 120  # of the 128 MiB that were freed
    assert before < 20  # else this test could not fail
    assert after < 20  # computing goes on without asking the system for every block
    assert left > 120  # what requests have freed goes back before weights are read
