from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from backend.process import parent_watch


@pytest.mark.parametrize(
    ("interval", "seconds"),
    [("", 2.0), ("500ms", 0.5), ("2s", 2.0), ("1m30s", 90.0), ("1.5s", 1.5), ("3", 3.0), ("0.25", 0.25), ("1us", 0.05),
     ("100000μs", 0.1), ("soon", 2.0), ("-1s", 2.0), ("0", 2.0), ("2s!", 2.0), ("3000000h", 3600.0),
     ("9" * 400, 3600.0)],
)  # fmt: skip
def test_the_interval_is_a_go_duration_or_seconds(interval: str, seconds: float) -> None:
    assert parent_watch.interval_s({"LOCALAI_BACKEND_PARENT_WATCH_INTERVAL": interval}) == pytest.approx(seconds)


@pytest.mark.parametrize("off", ["false", "0", "no", "off", "FALSE"])
def test_the_watch_can_be_switched_off(off: str) -> None:
    assert parent_watch.interval_s({"LOCALAI_BACKEND_PARENT_WATCH": off}) is None


def test_a_dead_parent_is_noticed() -> None:
    gone = threading.Event()
    parent_watch.watch({"QWEN_ASR_PARENT": "1" if os.getppid() != 1 else "2"}, gone.set)
    assert gone.wait(5)


def test_an_orphan_exits() -> None:
    """A middle process starts the watching one and dies; the grandchild's end closes the pipe."""
    grandchild = (
        "import os, time; from backend.process.parent_watch import watch;"
        "watch({'LOCALAI_BACKEND_PARENT_WATCH_INTERVAL': '50ms'});"
        "print('watching', flush=True); time.sleep(60)"
    )
    middle = (
        "import subprocess, sys;"
        f"child = subprocess.Popen([sys.executable, '-c', {grandchild!r}], stdout=subprocess.PIPE);"
        "child.stdout.readline()"
    )
    process = subprocess.run(
        [sys.executable, "-c", middle], capture_output=True, timeout=30, cwd=Path(__file__).parents[2]
    )
    assert process.returncode == 0
    assert b"the parent process has gone" in process.stderr  # read to its end: the grandchild has left, too


def test_an_orphan_that_was_adopted_before_the_watch_started_exits() -> None:
    """What run.sh and Python then take for the parent is who adopted it."""
    grandchild = (
        "import os, time; from backend.process import parent_watch; first = os.getppid(); print('up', flush=True)\n"
        "while os.getppid() == first: time.sleep(0.001)\n"
        "parent_watch.watch({'QWEN_ASR_PARENT': str(os.getppid())}); time.sleep(60)"
    )
    middle = (
        "import subprocess, sys;"
        f"child = subprocess.Popen([sys.executable, '-c', {grandchild!r}], stdout=subprocess.PIPE);"
        "child.stdout.readline()"
    )
    process = subprocess.run(
        [sys.executable, "-c", middle],
        capture_output=True,
        timeout=30,
        cwd=Path(__file__).parents[2],
        start_new_session=True,  # as a service has one, or what a shell starts
    )
    assert b"the parent process has gone" in process.stderr


@pytest.mark.parametrize("leads", [True, False])
def test_a_living_parent_is_no_adopter(leads: bool) -> None:
    child = (
        "import os, time; from backend.process.parent_watch import watch;"
        "watch(os.environ); time.sleep(0.3); print('alive')"
    )
    said = subprocess.run(
        [sys.executable, "-c", child],
        capture_output=True,
        timeout=30,
        cwd=Path(__file__).parents[2],
        start_new_session=leads,
        env={**os.environ, "LOCALAI_BACKEND_PARENT_WATCH_INTERVAL": "50ms", "QWEN_ASR_PARENT": str(os.getpid())},
    )
    assert said.stdout == b"alive\n"


def test_the_log_names_what_is_watched_and_how_to_switch_that_off() -> None:
    said = parent_watch.described({"QWEN_ASR_PARENT": str(os.getpid())})
    assert f"watching process {os.getpid()} (" in said
    assert "LOCALAI_BACKEND_PARENT_WATCH=false" in said
    assert "is not watched" in parent_watch.described({"LOCALAI_BACKEND_PARENT_WATCH": "off"})
