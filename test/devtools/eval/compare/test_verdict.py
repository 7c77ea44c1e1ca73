"""What is said of figures, on figures made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from devtools.eval.compare.paired import Difference, Unit
from devtools.eval.compare.verdict import Outcome, Thresholds, judge, outcome
from devtools.eval.scoring import Figures, Latency
from devtools.machine_load import Load

FIGURES = Figures(10, 0, 1.0, 0.02, 0.01, None, None, None, 1.0, 20.0, Latency(0.5, 0.9), 0, 0)
QUIET, BUSY = Load(0.0, 2), Load(1.0, 2)


def difference(measure: str, value: float, low: float | None, high: float | None, unit: Unit = "points") -> Difference:
    return Difference("int8", measure, unit, measure not in ("word errors", "boundary errors"), 50, value, low, high)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (difference("word errors", 2.0, 1.0, 3.0), "worse"),
        (difference("word errors", -2.0, -3.0, -0.1), "better"),
        (difference("language", -2.0, -3.0, -1.0), "worse"),
        (difference("word errors", 0.1, -0.3, 0.4), "the same"),
        (difference("word errors", 0.4, 0.1, 0.7), "not decided"),  # there, but smaller than the margin
        (difference("word errors", 2.0, -1.0, 5.0), "not decided"),
        (difference("word errors", 2.0, None, None), "not decided"),
        (difference("boundary errors", 3.0, -2.0, 9.0, "ms"), "the same"),
        (difference("boundary errors", 30.0, 20.0, 40.0, "ms"), "worse"),
        (difference("speed", 1.5, 1.2, 1.9, "times"), "better"),
        (difference("speed", 0.5, 0.4, 0.6, "times"), "worse"),
        (difference("speed", 1.02, 0.95, 1.05, "times"), "the same"),
    ],
)
def test_a_difference_counts_if_it_is_sure_and_matters(found: Difference, expected: Outcome) -> None:
    assert outcome(found, Thresholds()) == expected


def test_margins_can_be_given() -> None:
    found = difference("word errors", 2.0, 1.0, 3.0)
    assert outcome(found, Thresholds(margin_points=5.0)) == "the same"


def test_times_of_a_busy_machine_are_not_judged() -> None:
    fast = difference("speed", 1.5, 1.2, 1.9, "times")
    for loads in ((QUIET, BUSY), (BUSY, QUIET)):
        judged = judge("int8", FIGURES, loads[0], [fast], Thresholds(), "backend", loads[1])
        assert judged.outcomes == {"speed": "not judged"}
        assert (
            judged.words[-1]
            == "So int8 can take the place of backend: no difference that matters; speed is not judged."
        )
    alone = judge("backend", FIGURES, BUSY, [], Thresholds())
    assert alone.words[-1] == "Its times are not to be trusted (busy machine: others used 1.0 of 2 processors)."


@pytest.mark.parametrize(
    ("thresholds", "passes", "said"),
    [
        (Thresholds(), True, "success 100 % (≥ 100 % asked for)"),
        (Thresholds(max_wer=1.0), False, "WER 2 % (≤ 1 % asked for)"),
        (Thresholds(max_wer=3.0, max_p95_s=1.0), True, "latency p95 0.9 s (≤ 1 s asked for)"),
        (Thresholds(max_boundary_ms=50.0), False, "boundary error not measured (≤ 50 ms asked for)"),
    ],
)
def test_what_was_asked_for_is_said_with_what_there_is(thresholds: Thresholds, passes: bool, said: str) -> None:
    judged = judge("backend", FIGURES, QUIET, [], thresholds)
    assert judged.passes is passes
    assert said in judged.words[0]
    assert judged.words[0].startswith("Within" if passes else "NOT within")


def conclusion(*found: Difference) -> str:
    return judge("int8", FIGURES, QUIET, found, Thresholds(), "backend", QUIET).words[-1]


def test_the_conclusion_follows_from_the_worst() -> None:
    worse = difference("word errors", 2.0, 1.0, 3.0)
    faster = difference("speed", 1.5, 1.2, 1.9, "times")
    open_ = difference("language", 2.0, -1.0, 5.0)
    assert conclusion(worse, faster, open_) == "So int8 is worse than backend in word errors, better in speed."
    assert conclusion(faster) == "So int8 can take the place of backend: better in speed, worse in nothing."
    assert conclusion(faster, open_) == (
        "So int8 is worse than backend in nothing that is decided, but language is not: that takes more recordings;"
        " better in speed."
    )


def test_few_recordings_are_said_and_very_few_decide_nothing() -> None:
    few = Difference("int8", "word errors", "points", False, 12, 0.0, 0.0, 0.0)
    assert "With 12 recordings the intervals are too narrow" in conclusion(few)
    assert outcome(few, Thresholds()) == "the same"
    assert outcome(replace(few, recordings=4), Thresholds()) == "not decided"
