from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from backend.doctor.child_process import report_of, run


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`module(source)`: the name of a module of this source that a child can run."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def write(source: str) -> str:
        (tmp_path / "a_probe.py").write_text(source)
        return "a_probe"

    return write


def test_the_objects_of_all_lines_are_one_report(module) -> None:
    report = report_of(module("print('a warning')\nprint('{\"a\": 1}')\nprint('{\"b\": [2]}')\nprint('7')"), 30)
    assert (report.facts, report.failure) == ({"a": 1, "b": [2]}, "")


def test_what_came_before_a_hang_is_kept(module) -> None:
    began = time.monotonic()
    report = report_of(module("import time\nprint('{\"a\": 1}', flush=True)\ntime.sleep(60)"), 1.0)
    assert (report.facts, report.failure, report.timed_out) == ({"a": 1}, "no answer within 1 s", True)
    assert time.monotonic() - began < 10


def test_a_crash_and_an_error_are_told_in_words(module) -> None:
    crash = report_of(module("import os, signal\nos.kill(os.getpid(), signal.SIGILL)"), 30)
    assert crash.failure == "it crashed: Illegal instruction"
    assert report_of(module("import no_such_package"), 30).failure.endswith("No module named 'no_such_package'")
    assert report_of(module("raise SystemExit(3)"), 30).failure == "it ended in silence"


def test_grandchildren_end_with_the_child(module, tmp_path: Path) -> None:
    report_of(
        module(
            "import subprocess, sys\n"
            "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
            f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))"
        ),
        30,
    )
    pid = int((tmp_path / "pid").read_text())
    until = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
        if "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:1]:
            break  # it has ended; nobody reaps it here
        time.sleep(0.02)
    assert time.monotonic() < until


def test_a_program_that_is_not_there_has_no_exit_code() -> None:
    assert run(["/no/such/program"], 5).code is None
    output = run([sys.executable, "-c", "print('said'); raise SystemExit(4)"], 30)
    assert (output.code, output.stdout) == (4, "said\n")
