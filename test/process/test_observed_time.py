"""What a watcher counts as time, and a countdown whose thread exists before it is needed."""

from __future__ import annotations

import threading

import pytest

from backend.errors import NoThreads
from backend.process import parent_watch
from backend.process.countdown import Countdown
from backend.process.observed_time import MAX_GAP_S, ObservedTime


def test_of_a_long_gap_between_two_looks_only_a_second_counts() -> None:
    moments = iter([100.0, 100.5, 101.0, 400.0, 400.25])
    observed = ObservedTime(lambda: next(moments))
    assert [observed.elapsed_s() for _ in range(4)] == [0.5, 1.0, 1.0 + MAX_GAP_S, 1.25 + MAX_GAP_S]


def test_a_countdown_starts_no_thread_when_it_is_started(monkeypatch) -> None:
    said: list[str] = []
    called = threading.Event()

    def action(*words: str) -> None:
        said.extend(words)
        called.set()

    countdown = Countdown(action)
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    countdown.start(0.0, "%s", "cause")
    assert called.wait(20)
    assert said == ["%s", "cause"]


def no_thread(_self: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_without_threads_the_start_says_what_to_do(monkeypatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    for start in (lambda: Countdown(print), lambda: parent_watch.watch({}, print)):
        with pytest.raises(NoThreads, match="ulimit -u"):
            start()
