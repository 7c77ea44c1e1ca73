from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.sequences.monotonic_path import best_times, refined


def exhaustive(scores: np.ndarray, min_length: int) -> float:
    """The best total over all allowed sequences, by trying them all."""
    slots, classes = scores.shape
    totals = [
        sum(scores[slot, c] for slot, c in enumerate(path))
        for path in itertools.product(range(classes), repeat=slots)
        if all(b >= a + (min_length if slot % 2 == 0 else 0) for slot, (a, b) in enumerate(itertools.pairwise(path)))
    ]
    return max(totals)


@settings(max_examples=60)
@given(words=st.integers(1, 2), classes=st.integers(1, 6), seed=st.integers(0, 10_000))
def test_no_allowed_sequence_scores_higher(words: int, classes: int, seed: int) -> None:
    scores = np.random.default_rng(seed).normal(size=(2 * words, classes)).astype(np.float32)
    min_length = 1 if classes > words else 0
    path = best_times(scores)
    assert (np.diff(path) >= 0).all()
    assert (path[1::2] - path[0::2] >= min_length).all()
    total = sum(float(scores[slot, c]) for slot, c in enumerate(path))
    assert total == pytest.approx(exhaustive(scores, min_length), abs=1e-4)


def test_an_argmax_that_is_monotone_is_kept() -> None:
    wanted = np.array([3, 7, 9, 12, 12, 20])
    scores = np.full((6, 25), -10, np.float32)
    scores[np.arange(6), wanted] = 0
    assert best_times(scores).tolist() == wanted.tolist()


def test_one_outlier_does_not_move_its_neighbours() -> None:
    wanted = [3, 7, 9, 12, 14, 20]
    scores = np.full((6, 25), -10, np.float32)
    scores[np.arange(6), wanted] = 0
    scores[2, 24] = 1  # the third slot's argmax is the very end
    path = best_times(scores)
    assert [*path[:2], *path[3:]] == [3, 7, 12, 14, 20]


def test_five_hundred_words_in_three_minutes_are_placed() -> None:
    path = best_times(np.random.default_rng(0).normal(size=(1000, 2250)).astype(np.float32))
    assert (np.diff(path) >= 0).all()
    assert (path[1::2] > path[0::2]).all()


def test_a_time_between_two_classes_is_found_between_them() -> None:
    scores = np.full((2, 10), -30, np.float32)
    scores[0, [3, 4]] = np.log([0.5, 0.5])
    scores[1, [6, 7, 8]] = np.log([0.1, 0.8, 0.1])
    start, end = refined(scores, best_times(scores))
    assert start == pytest.approx(3.49, abs=0.02)
    assert end == pytest.approx(7, abs=1e-3)


@settings(max_examples=100)
@given(words=st.integers(1, 12), extra=st.integers(1, 20), seed=st.integers(0, 10_000))
def test_refining_keeps_order_and_lengths_and_stays_within_half_a_class(words: int, extra: int, seed: int) -> None:
    scores = np.random.default_rng(seed).normal(scale=3, size=(2 * words, words + extra)).astype(np.float32)
    path = best_times(scores)
    times = refined(scores, path)
    assert (np.diff(times) >= 0).all()
    assert (times[1::2] > times[0::2]).all()
    assert (np.abs(times - path) < 0.5).all()
