"""Differences and their intervals, on figures made by hand, and by simulation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from devtools.eval.compare.paired import BOUNDARIES, LANGUAGE, SPEED, SUCCESS, WORDS, Difference, differences
from devtools.eval.hypotheses import Hypothesis
from devtools.eval.manifest import Entry
from devtools.eval.scoring import Count, Score, Scored


def scored(errors: int, units: int = 10, *, took_s: float = 1.0, edge_s: float | None = None, failed: bool = False):
    edges = () if edge_s is None else (edge_s, edge_s)
    score = Score(Count(errors, units), Count(), (), edges, 0, 0, 0, not failed, False)
    failure = "broke" if failed else ""
    return Scored(Entry("a", Path("a"), "x", "en"), Hypothesis(took_s=took_s, failure=failure), score, 10.0)


def found(pairs: list[tuple[Scored, Scored]]) -> dict[str, Difference]:
    return {each.measure: each for each in differences("other", pairs)}


def test_sums_are_divided_and_not_shares_averaged() -> None:
    both = [(scored(1, 100), scored(0, 100)), (scored(0, 10), scored(5, 10))]
    words = found(both)[WORDS]
    assert words.value == pytest.approx(100 * (5 / 110 - 1 / 110))
    assert words.recordings == 2


def test_equal_systems_differ_by_nothing_however_hard_the_recordings_are() -> None:
    both = [(scored(n % 7, edge_s=0.01), scored(n % 7, edge_s=0.01)) for n in range(30)]
    for each in found(both).values():
        expected = 1.0 if each.measure == SPEED else 0.0
        assert (each.value, each.low, each.high) == pytest.approx((expected, expected, expected))


def test_speed_is_how_many_times_as_fast_and_leaves_failures_out() -> None:
    both = [(scored(0, took_s=3.0), scored(0, took_s=1.0))] * 3 + [(scored(0, took_s=50.0), scored(9, failed=True))]
    by_measure = found(both)
    assert by_measure[SPEED].value == pytest.approx(3.0)
    assert by_measure[SPEED].recordings == 3
    assert by_measure[SUCCESS].value == pytest.approx(-25.0)
    assert by_measure[LANGUAGE].value == pytest.approx(-25.0)


def test_one_recording_has_a_difference_and_no_interval() -> None:
    words = found([(scored(1), scored(2))])[WORDS]
    assert (words.value, words.low, words.high) == (pytest.approx(10.0), None, None)


def test_what_only_one_system_has_is_no_difference() -> None:
    assert BOUNDARIES not in found([(scored(0, edge_s=0.01), scored(0))] * 4)
    assert found([(scored(0, edge_s=0.02), scored(0, edge_s=0.03))] * 4)[BOUNDARIES].value == pytest.approx(10.0)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    chance, held, trials = np.random.default_rng(1), 0, 60
    for _ in range(trials):
        rates = chance.uniform(0, 0.4, 40)  # recordings are hard or easy for both
        both = [
            (scored(int(chance.binomial(50, rate)), 50), scored(int(chance.binomial(50, rate + 0.05)), 50))
            for rate in rates
        ]
        words = found(both)[WORDS]
        assert words.low is not None
        assert words.high is not None
        held += words.low <= 5.0 <= words.high
    assert held >= 0.85 * trials
    assert words.low is not None
    assert words.high is not None
    unpaired = 100 * 2 * 1.96 * np.sqrt(2 * np.var(rates) / 40)
    assert words.high - words.low < unpaired  # narrower than without pairs
