"""A start that fails says why in its last line, whatever half an install or a small machine lets happen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from backend.process.machine.system_cause import EXECUTABLE, THREADS
from backend.process.start_failure import start_cause

ROOT = Path(__file__).parents[2]
# Stands before the program: a module that is missing, one that fails, and a system that starts no thread.
SPOILED = {
    "no grpc": ("import sys; sys.modules['grpc'] = None", "grpc"),
    "no stubs": ("import sys; sys.modules['backend.wire.backend_pb2'] = None", "backend_pb2"),
    "no numpy": ("import sys; sys.modules['numpy'] = None", "numpy"),
    "no thread": (
        "import threading\n"
        'def start(self): raise RuntimeError("can\'t start new thread")\n'
        "threading.Thread.start = start",
        "no thread can be started",
    ),
}


@pytest.mark.parametrize(("spoil", "said"), SPOILED.values(), ids=SPOILED)
def test_the_last_line_is_the_cause(spoil: str, said: str) -> None:
    program = f"{spoil}\nimport runpy, sys\nsys.argv = ['backend', '--addr', '127.0.0.1:0']\n"
    program += "runpy.run_module('backend', run_name='__main__')"
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60,
        env={**os.environ, "QWEN_ASR_PARENT": ""},
    )  # fmt: skip
    last = ended.stderr.splitlines()[-1]
    assert ended.returncode == 1
    assert last.startswith("the backend cannot start: ")
    assert said in last
    assert ("run install.sh" in last) == ("thread" not in said)


def test_what_a_small_system_forbids_is_named() -> None:
    assert start_cause(RuntimeError("can't start new thread")) == THREADS
    mapped = ImportError("libtorch.so: failed to map segment from shared object: Operation not permitted")
    assert start_cause(mapped) == EXECUTABLE
    assert "cannot be read" in start_cause(PermissionError(13, "Permission denied", "/opt/backend_pb2.py"))


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_memory_that_may_not_be_executed_is_the_cause_where_a_library_cannot_make_its_code() -> None:
    """Under PR_SET_MDWE (systemd's MemoryDenyWriteExecute), which Linux knows from 6.3 on."""
    code = (
        "import ctypes; from backend.process.machine.system_cause import system_cause as cause\n"
        "error = RuntimeError('could not create a primitive')\n"
        "print(repr(cause(error)), ctypes.CDLL(None).prctl(65, 1, 0, 0, 0), cause(error), sep='|')"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    before, status, after = ended.stdout.strip().split("|")
    if status != "0":
        pytest.skip("this kernel has no PR_SET_MDWE")
    assert (before, after) == ("''", EXECUTABLE)
