"""The table and the JSON, of rows made by hand."""

from __future__ import annotations

import json

from devtools.bench.measurement import Goal, Row
from devtools.bench.table import as_json, terminal

ROWS = [
    Row("clip", "ours bf16", "today", "s", "fewer", ((4.0, 12.0), (4.0, 10.0), (4.0, 11.0)), Goal("≥", 2.5)),
    Row("clip", "ours int8", "today", failure="refused: not supported"),
    Row("decode", "ours int8", "limit", "ms", "share", ((63.0, 21.0),), Goal("≤", 2), note="0.59 GB"),
    Row("crowd", "ours int8", "today", failure="refused: not supported", mismatches=2),
]


def test_the_table_has_figures_goals_and_what_went_wrong() -> None:
    preface, table, remarks = terminal(ROWS, "a machine").split("\n\n")
    lines = table.splitlines()
    assert preface == "a machine"
    assert lines[1].split() == "clip ours bf16 today s 4.00 11.0 (10.0–12.0) 2.75 × 2.50 3.00 ≥ 2.5 met".split()
    assert lines[2].split() == "ours int8 today - - - - - [1]".split()  # the measure's name stands once
    assert lines[3].split() == "decode ours int8 limit ms 63.0 21.0 3.00 of it 3.00 3.00 ≤ 2 MISSED [2]".split()
    assert remarks.splitlines() == [
        "[1] refused: not supported",
        "[2] 0.59 GB",
        "[3] refused: not supported; 2 text(s) are not what they are alone",
    ]


def test_the_json_has_every_pair() -> None:
    clip, refused, *_ = json.loads(json.dumps(as_json(ROWS)))
    assert clip["pairs"] == [[4.0, 12.0], [4.0, 10.0], [4.0, 11.0]]
    assert (clip["median"], clip["least"], clip["most"]) == (2.75, 2.5, 3.0)
    assert (clip["wanted"], clip["is_met"]) == ("≥ 2.5", True)
    assert (refused["median"], refused["failure"]) == (None, "refused: not supported")
