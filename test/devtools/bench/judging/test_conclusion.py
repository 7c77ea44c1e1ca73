"""The closing verdict, of rows made by hand."""

from __future__ import annotations

from devtools.bench.judging.conclusion import conclusion
from devtools.bench.measurement import Goal, Row
from devtools.machine_load import Load

QUIET, BUSY = Load(0.0, 2), Load(1.0, 2)
MET = Row("clip", "ours", "today", pairs=((1.0, 3.0), (1.0, 2.0)), goal=Goal("≥", 2))
NARROW = Row("long", "ours", "today", pairs=((1.0, 3.0), (1.0, 0.5), (1.0, 2.0)), goal=Goal("≥", 2))
MISSED = Row("crowd, p50", "ours", "today", pairs=((1.0, 0.5), (1.0, 0.7)), goal=Goal("≥", 1))
OPEN = Row("stream", "ours", "unary", pairs=((1.0, 2.0),))
FAILED = Row("gpu", "ours", "", failure="no such device")


def test_what_is_met_missed_narrow_and_not_measured_is_said() -> None:
    assert conclusion([MET, NARROW, MISSED, OPEN, FAILED], QUIET).splitlines() == [
        "Verdict",
        "  2 of 3 goals met.",
        "  Missed: crowd, p50, ours against today: 0.60 (0.50 to 0.70), ≥ 1 wanted.",
        "  Met by the median, not in every round: long, ours against today: 2.00 (0.50 to 3.00), ≥ 2 wanted.",
        "  Not measured: gpu, ours: no such device",
        "  The times can be trusted (quiet machine: others used 0.0 of 2 processors).",
    ]


def test_all_goals_met_and_none_to_judge_are_told_apart() -> None:
    assert "1 of 1 goals met: every one that could be judged." in conclusion([MET, OPEN], QUIET)
    assert "No row has a goal that could be judged." in conclusion([OPEN], QUIET)


def test_one_round_may_be_chance() -> None:
    once = Row("clip", "ours", "today", pairs=((1.0, 3.0),), goal=Goal("≥", 2))
    assert "1 of them by one round, which may be chance" in conclusion([once, MET], QUIET)
    assert "by one round" not in conclusion([MET], QUIET)


def test_wrong_texts_are_never_good() -> None:
    wrong = Row("8 clips", "ours", "today", pairs=((1.0, 2.0),), mismatches=2)
    assert "WRONG TEXTS: 8 clips, ours against today: 2." in conclusion([wrong], QUIET)


def test_a_busy_machine_is_named_with_the_rows_that_it_touched() -> None:
    rows = [Row("clip", "ours", "today", load=BUSY), Row("long", "ours", "today", load=QUIET)]
    said = conclusion(rows, BUSY).splitlines()[-1]
    assert "The machine was busy (busy machine: others used 1.0 of 2 processors, at 1 of 2 rows)" in said
