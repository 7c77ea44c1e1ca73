"""Percent of a recording, from what waits in the queue."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import sys
import termios
import time
from collections.abc import Iterator
from itertools import chain, repeat

import pytest

from devtools.transcribe import progress as module
from devtools.transcribe.progress import Progress, shown_progress


def test_percent_rises_as_the_queue_empties() -> None:
    progress = Progress()
    assert [progress.percent(s) for s in (0, 0, 200, 150, 160, 50, 0)] == [None, None, 0, 25, 25, 75, 99]


def test_the_aligners_passages_are_a_stage_of_their_own() -> None:
    progress = Progress()
    assert [progress.percent(s) for s in (100, 0, 80, 40, 0)] == [0, 99, 0, 50, 99]
    assert progress.step == 2


def test_sound_that_is_queued_later_counts() -> None:
    progress = Progress()
    assert [progress.percent(s) for s in (100, 50, 200, 100)] == [0, 50, 0, 50]
    assert progress.step == 1


@pytest.mark.parametrize("columns", [0, 100])
def test_a_terminal_shows_percent_and_then_a_clean_line(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    waiting: Iterator[float] = chain([100.0, 40.0, 0.0, 60.0, 30.0], repeat(30.0))
    monkeypatch.setattr(module, "waiting_s", lambda _port: next(waiting))
    monkeypatch.setattr(module, "_INTERVAL_S", 0.001)
    monkeypatch.delenv("COLUMNS", raising=False)
    shown = ""
    with os.fdopen(theirs, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with shown_progress("transcribing", 1):
            until = time.monotonic() + 30
            while "step 2: 50 %" not in shown and time.monotonic() < until:
                shown += os.read(ours, 4096).decode()
        terminal.flush()
        shown += os.read(ours, 4096).decode()
    os.close(ours)
    assert "transcribing 60 % 00:00" in shown
    assert "transcribing, step 2: 50 % 00:00" in shown
    assert shown.rstrip("\r").rpartition("\r")[2].strip() == ""
