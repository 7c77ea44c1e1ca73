"""The table, the JSON and the exit code, of lines made by hand."""

from __future__ import annotations

import json

import pytest

from devtools.stress.lines import are_met, as_json, at_most, failed, holds, none_of, quantile, terminal, told

LINES = [
    told("load", "sent", "12 = 12 exact"),
    none_of("load", "lost", 0),
    at_most("load", "Health, p99", 0.25, 0.1, "s"),
    holds("fault", "a poison", "x" * 100, "exact", True, "by the way"),
]


def test_the_table_has_values_goals_verdicts_and_notes() -> None:
    preface, table, notes, closing = terminal(LINES, "16 streams").split("\n\n")
    lines = [line.split() for line in table.splitlines()]
    assert preface == "16 streams"
    assert lines[1] == "load sent 12 = 12 exact".split()
    assert lines[2] == "lost 0 0 met".split()  # the measure's name stands once
    assert lines[3] == "Health, p99 0.25 s ≤ 0.1 s FAILED".split()
    assert lines[4][-3:] == ["exact", "met", "[1]"]
    assert notes == f"[1] {'x' * 100}; by the way"  # what is too long for the table stands below it whole
    assert closing == "2 of 3 goals met"


def test_a_missed_goal_is_a_failure_and_so_is_nothing_at_all() -> None:
    assert are_met(LINES[:2])
    assert not are_met(LINES)
    assert not are_met([])
    assert not are_met([failed("load", "did not start")])
    assert at_most("load", "p99", None, 1, "s").is_met is False  # nothing was measured


def test_the_json_has_the_figures() -> None:
    found = json.loads(json.dumps(as_json(LINES)))
    assert found[2]["figures"] == {"value": 0.25, "most": 0.1}
    assert [line["is_met"] for line in found] == [None, True, False, True]


@pytest.mark.parametrize(
    ("values", "share", "value"), [([], 0.5, None), ([3, 1, 2], 0.5, 2), (range(100), 0.99, 99), ([7], 0.99, 7)]
)
def test_a_quantile_is_one_of_the_values(values: list[float], share: float, value: float | None) -> None:
    assert quantile(list(values), share) == value
