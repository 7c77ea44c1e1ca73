"""A container with too little memory for one upload: it is refused, and the server lives. Linux, as root.

The server is put into a memory control group whose limit is what it uses and some headroom.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from backend.audio.waveform import SAMPLE_RATE
from backend.process.machine.available_memory import control_groups
from devtools import procfs
from devtools.stress.client import FULL, Request, Server, exact_of, noise_requests
from devtools.stress.plan import Plan, prompt_for
from devtools.stress.results import Results

pytestmark = pytest.mark.slow

_HEADROOM_MIB, _MINUTES = 250, 90


@contextlib.contextmanager
def memory_group() -> Iterator[tuple[Path, str, str]]:
    """A new memory control group, and its files of use and limit: version 1 or 2. Skips where none can be made."""
    v1, v2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    proc = Path("/proc")
    root, names = (v1, ("memory.usage_in_bytes", "memory.limit_in_bytes")) if v1.is_dir() else (
        v2, ("memory.current", "memory.max")
    )  # fmt: skip
    parents = [group for group in control_groups(proc, root, "memory" if root == v1 else "") if group.is_dir()]
    group = next(iter(parents), root) / f"qwen-asr-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError:
        pytest.skip("no memory control group can be made here: this needs root and a writable /sys/fs/cgroup")
    try:
        if not (group / names[1]).exists():
            pytest.skip("the memory controller is not delegated to this control group")
        yield group, *names
    finally:
        until = time.monotonic() + 10
        while time.monotonic() < until:
            try:
                group.rmdir()
                break
            except OSError:  # its last process is still ending
                time.sleep(0.1)


@pytest.mark.soak("machine")
async def test_an_upload_that_the_container_has_no_memory_for_is_refused(folder: Path, results: Results) -> None:
    upload = folder / "lecture.flac"
    minute = np.tile(np.repeat(np.array([3000, -3000], np.int16), 40), SAMPLE_RATE * 60 // 80)  # not silent, and small
    with soundfile.SoundFile(upload, "w", SAMPLE_RATE, 1) as file:
        for _ in range(_MINUTES):
            file.write(minute)
    with memory_group() as (group, used, limit):
        with Server() as server:
            server.load_plan(Plan())
            assert await server.golden() == "exact"
            for pid in (*procfs.children(server.pid), server.pid):
                (group / "cgroup.procs").write_text(str(pid))
            before = int((group / used).read_text())  # what they took before counts elsewhere
            (group / limit).write_text(str(before + _HEADROOM_MIB * procfs.MIB))
            bystanders = noise_requests(folder, range(4), 2.0, 300)
            victim, *others = await server.transcribe_all([Request(upload, prompt=prompt_for(1)), *bystanders])
            took = max(int((group / used).read_text()) - before, 0) / procfs.MIB
            golden = await server.golden()
            is_met = victim.status == FULL and all(each.is_exact for each in others)
        measured = f"victim {victim.status}; bystanders {exact_of(others)}"
        name = f"{_HEADROOM_MIB} MiB of a container for {_MINUTES} minutes"
        results.fault(name, measured, f"{FULL}; all exact", is_met, golden, f"{victim.details}; {took:.0f} MiB more")
