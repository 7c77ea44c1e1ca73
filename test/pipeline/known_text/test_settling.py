"""Which units of a window are settled, by the aligner's certainty."""

from __future__ import annotations

import math

import pytest

from backend.pipeline.known_text.settling import Progress, certain_count
from backend.serving.protocols import AlignedUnit
from backend.thresholds import MAX_PACE_LETTERS_PER_S, MIN_PACE_LETTERS_PER_S, UNSETTLED_UNITS


def units(*runs: tuple[int, float]) -> list[AlignedUnit]:
    return [AlignedUnit("x", 0.1, 0.2, False, sure) for count, sure in runs for _ in range(count)]


@pytest.mark.parametrize(
    ("given", "is_end", "count"),
    [
        ([(40, 0.95)], True, 40),
        ([(40, 0.95)], False, 40 - UNSETTLED_UNITS),
        ([(40, 0.95), (12, 0.02)], False, 40 - UNSETTLED_UNITS),
        ([(20, 0.9), (1, 0.1), (20, 0.9), (10, 0.0)], False, 41 - UNSETTLED_UNITS),  # a single one may be low
        ([(12, 0.95), (40, 0.05)], False, 12 - UNSETTLED_UNITS),  # few, but sure
        ([(12, 0.65), (40, 0.05)], False, 0),  # few, and by chance
        ([(40, 0.4)], True, 0),
        ([(3, 0.9)], True, 3),
    ],
)
def test_units_are_settled_as_far_as_they_are_certain(given, is_end: bool, count: int) -> None:
    assert certain_count(units(*given), is_end) == count


def test_behind_a_jump_chance_is_no_place() -> None:
    assert certain_count(units((25, 0.7)), False, 0.4) == 0
    assert certain_count(units((6, 0.95)), True, 0.4) == 0
    assert certain_count(units((25, 0.95)), False, 0.4) == 25 - UNSETTLED_UNITS


def test_units_outside_and_without_a_number_are_not_certain() -> None:
    outside = [AlignedUnit("x", 0.1, 0.2, True, 0.9)] * 20
    assert certain_count([*units((30, 0.95)), *outside], False) == 30 - UNSETTLED_UNITS
    assert certain_count(units((20, math.nan)), True) == 0


def test_the_pace_is_that_of_what_was_settled_within_human_bounds() -> None:
    progress = Progress(letters=1000, sound_s=100.0)
    assert progress.pace == pytest.approx(10)
    progress.passed(600, 40.0)
    assert progress.pace == pytest.approx(15)
    assert Progress(10**6, 10.0).pace == MAX_PACE_LETTERS_PER_S
    assert Progress(1, 1000.0).pace == MIN_PACE_LETTERS_PER_S
