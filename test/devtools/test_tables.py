"""Tables for a terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from devtools.tables import Footnotes, aligned, figure, sections, without_repeats, write_json


def test_columns_count_east_asian_characters_as_two() -> None:
    assert aligned([["一", "1"], ["abc", "22"]]) == "一    1\nabc  22"


def test_columns_of_words_are_aligned_left_and_lines_have_no_trailing_space() -> None:
    assert aligned([["a", "long word", "1"], ["bb", "x", ""]], left=2) == "a   long word  1\nbb  x"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.25, "0.25"), (4, "4.00"), (21.04, "21.0"), (-63, "-63.0"), (512.4, "512"), (0, "0.00"), (None, "-")],
)
def test_a_number_has_three_significant_digits(value: float | None, shown: str) -> None:
    assert figure(value) == shown


def test_a_column_may_fix_its_decimals() -> None:
    assert (figure(33.333, 2), figure(7, 0), figure(None, 1)) == ("33.33", "7", "-")


def test_a_group_is_named_once() -> None:
    assert without_repeats([["clip", "1"], ["clip", "2"], ["crowd", "3"], ["clip", "4"]]) == [
        ["clip", "1"],
        ["", "2"],
        ["crowd", "3"],
        ["clip", "4"],
    ]


def test_equal_remarks_share_a_footnote() -> None:
    notes = Footnotes()
    assert [notes.mark("refused"), notes.mark("", ""), notes.mark("refused", "slow"), notes.mark("refused")] == [
        "[1]",
        "",
        "[2]",
        "[1]",
    ]
    assert sections("a machine", "", notes) == "a machine\n\n[1] refused\n[2] refused; slow"
    assert sections("a", Footnotes()) == "a"


def test_the_json_reads_back(tmp_path: Path) -> None:
    results = {"rows": [{"text": "一", "value": None}]}
    write_json(tmp_path / "new" / "results.json", results)
    assert json.loads((tmp_path / "new" / "results.json").read_text(encoding="utf-8")) == results
