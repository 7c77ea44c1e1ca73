"""Implausible runs of words are found where they are, and only there."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from backend.thresholds import MIN_RUN_S, MIN_RUN_WORDS
from backend.transcript.implausible_runs import find_implausible_runs


def steady(count: int, step_s: float, start_s: float = 0.0) -> list[tuple[float, float]]:
    return [(start_s + n * step_s, start_s + (n + 1) * step_s) for n in range(count)]


def test_five_words_within_a_tenth_of_a_second_are_a_run() -> None:
    times = [*steady(4, 0.3), *steady(5, 0.02, 2.0), *steady(4, 0.3, 3.0)]
    assert find_implausible_runs(times) == [(4, 9)]


def test_words_of_one_class_each_are_a_run() -> None:
    assert find_implausible_runs(steady(12, 0.08)) == [(0, 12)]


def test_four_words_are_no_run_and_fast_speech_is_none() -> None:
    assert find_implausible_runs(steady(4, 0.01)) == []
    assert find_implausible_runs(steady(50, 0.11)) == []


def test_two_separate_runs_are_two() -> None:
    assert find_implausible_runs([*steady(6, 0.01), *steady(10, 0.4, 1.0), *steady(5, 0.01, 6.0)]) == [(0, 6), (16, 21)]


@settings(max_examples=200)
@given(st.lists(st.floats(0, 0.3), max_size=40))
def test_every_five_close_words_are_in_a_run_and_runs_are_disjoint(steps) -> None:
    times, at = [], 0.0
    for step in steps:
        times.append((at, at + step))
        at += step
    found = find_implausible_runs(times)
    inside = {n for first, after in found for n in range(first, after)}
    for first in range(len(times) - MIN_RUN_WORDS + 1):
        if times[first + MIN_RUN_WORDS - 1][1] - times[first][0] < MIN_RUN_S:
            assert set(range(first, first + MIN_RUN_WORDS)) <= inside
    assert all(after - first >= MIN_RUN_WORDS for first, after in found)
    assert all(a[1] < b[0] for a, b in pairwise(found))
