"""What is said about pairs of figures, on figures made by hand."""

from __future__ import annotations

import pytest

from devtools.bench.measurement import Goal, Row, Spread, alternate, percentile


def test_a_ratio_is_a_pairs_own_and_the_figure_is_their_median() -> None:
    # a machine that became three times slower: the medians of the sides say nothing, the pairs do
    row = Row("clip", "ours", "today", "s", pairs=((1.0, 2.0), (3.0, 6.3), (3.0, 5.7)))
    assert row.spread == pytest.approx(Spread(2.0, 1.9, 2.1))
    assert row.medians == (3.0, 5.7)


def test_what_is_better_when_it_is_more_is_divided_the_other_way_round() -> None:
    assert Row("crowd", "ours", "today", sense="more", pairs=((60.0, 10.0),)).spread == Spread(6.0, 6.0, 6.0)
    assert Row("load", "ours", "weights", sense="share", pairs=((115.0, 100.0),)).spread == Spread(1.15, 1.15, 1.15)


def test_nothing_to_divide_by_is_no_ratio() -> None:
    assert Row("clip", "ours", "today").spread is None
    assert Row("clip", "ours", "today", pairs=((0.0, 1.0),)).spread is None
    assert Row("clip", "ours", "today", pairs=((0.0, 1.0), (1.0, 4.0))).spread == Spread(4.0, 4.0, 4.0)


def test_a_goal_is_met_from_its_side() -> None:
    assert Row("clip", "a", "b", pairs=((1.0, 2.5),), goal=Goal("≥", 2.5)).is_good
    assert Row("step", "a", "b", sense="share", pairs=((1.8, 1.0),), goal=Goal("≤", 1.7)).is_good is False
    assert Row("clip", "a", "b", pairs=((1.0, 2.5),)).is_good is None
    assert Row("clip", "a", "b", goal=Goal("≥", 1)).is_good is None


def test_neither_side_always_follows_the_other() -> None:
    calls: list[str] = []

    def call(side: str) -> int:
        calls.append(side)
        return len(calls)

    found = alternate(4, lambda: call("a"), lambda: call("b"))
    assert "".join(calls) == "abbaabba"
    assert found == [(1, 2), (4, 3), (5, 6), (8, 7)]


def test_a_percentile_is_one_of_the_values() -> None:
    waits = [0.1 * n for n in range(1, 21)]
    assert percentile(waits, 50) == pytest.approx(1.0)
    assert percentile(waits, 95) == pytest.approx(1.9)
    assert percentile([7.0], 5) == percentile([7.0], 95) == 7.0
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)
