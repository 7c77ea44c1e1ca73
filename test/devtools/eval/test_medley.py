"""Medleys and what is measured on them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from devtools.eval import manifest
from devtools.eval.known_text import beginnings, medley_cases
from devtools.eval.manifest import DEMO_SET
from devtools.eval.medley import SAMPLE_RATE, Case, Line, lines_of, music


def test_sentences_are_lines_with_their_times() -> None:
    words = [("One", 0.1, 0.4), ("two", 0.5, 0.9), ("Three", 1.2, 1.5)]
    assert lines_of("One two. Three.", words) == [Line("One two.", 0.1, 0.9), Line("Three.", 1.2, 1.5)]


def test_music_is_as_long_as_asked_and_the_same_each_time() -> None:
    sound = music(1.7)
    assert sound.size == round(1.7 * SAMPLE_RATE)
    assert 0.05 < np.abs(sound).max() <= 1
    np.testing.assert_array_equal(sound, music(1.7))


def test_lines_of_a_medley_are_said_where_they_start() -> None:
    cases = {case.name: case for case in medley_cases(manifest.read(DEMO_SET))}
    plain, gaps = cases["the text as it is said"], cases["60 s of music in the middle"]
    assert gaps.samples.size == plain.samples.size + 60 * SAMPLE_RATE
    assert [line.text for line in gaps.lines] == [line.text for line in plain.lines]
    for case in cases.values():
        starts_s = [line.start_s for line in case.lines if not math.isnan(line.start_s)]
        assert starts_s == sorted(starts_s)
    for line, moved in zip(plain.lines[-3:], gaps.lines[-3:], strict=True):
        begin, begin_moved = (round(at.start_s * SAMPLE_RATE) for at in (line, moved))
        sound = plain.samples[begin : begin + 4000]
        shifts = (-1, 0, 1)  # a cut is rounded to a sample
        assert any(np.array_equal(sound, gaps.samples[begin_moved + by : begin_moved + by + 4000]) for by in shifts)


def test_lines_that_are_not_said_count_for_nothing() -> None:
    lines = (Line("a", 1.0, 2.0), Line("b", math.nan, math.nan), Line("c", 3.0, 4.0))
    found = beginnings(Case("x", np.zeros(1, np.float32), lines, "en"), [1.1, 99.0, 4.0])
    assert found is not None
    assert (found.lines, found.lost) == (2, 1)
    assert found.mean_s == pytest.approx(0.55)
    assert beginnings(Case("x", np.zeros(1, np.float32), lines, "en"), None) is None
