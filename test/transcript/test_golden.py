"""The demo aligner's units for recordings, replayed through words and segments."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backend.transcript.segments import SegmentRules, merge
from backend.transcript.words import place

GOLDEN = sorted((Path(__file__).parent.parent / "golden").glob("*.json"))


def test_the_golden_files_are_there() -> None:
    assert {path.stem for path in GOLDEN} == {"demo", "chinese", "left_out"}


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_units_become_the_words_and_segments_of_the_golden_file(path: Path) -> None:
    golden = json.loads(path.read_text(encoding="utf-8"))
    text = golden["text"]
    words = place(text, golden["units"], start_s=0.0, end_s=golden["duration_s"])
    assert [[text[w.begin : w.end], round(w.start_s, 3), round(w.end_s, 3)] for w in words] == golden["words"]
    segments = merge(text, words, SegmentRules())
    found = [[text[s.begin : s.end], round(s.start_s, 3), round(s.end_s, 3), len(s.words)] for s in segments]
    assert found == golden["segments"]
