"""Lyrics files: read, written out, rendered with new times, and how far their lines moved."""

from __future__ import annotations

import pytest

from backend.wire.backend_pb2 import TranscriptResult, TranscriptSegment, TranscriptWord
from devtools.transcribe.formats import FORMATS
from devtools.transcribe.lyrics import movements, read_rows, rendered, written_out

MS = 1_000_000
LRC = "[ar:A]\n[offset:+500]\n[length:03:00]\n[Chorus]\n[00:01.50]Hello there (x2)\n\n[00:04.00]Good night\n"


def segment(text: str, start_ms: int, step_ms: int = 500) -> TranscriptSegment:
    words = [
        TranscriptWord(text=word, start=(start_ms + n * step_ms) * MS, end=(start_ms + (n + 1) * step_ms) * MS)
        for n, word in enumerate(text.split())
    ]
    return TranscriptSegment(text=text, start=words[0].start, end=words[-1].end, words=words)


RESULT = TranscriptResult(segments=[segment("Hello there", 1200), segment("Good night", 5000)])


def test_what_is_not_sung_goes_back_into_its_place() -> None:
    rows = read_rows(LRC)
    assert rendered(rows, RESULT, with_words=False) == (
        "[ar:A]\n[00:01.20] [Chorus]\n[00:01.20] Hello there (x2)\n\n[00:05.00] Good night\n\n"
    )
    assert "[00:01.20] <00:01.20>Hello <00:01.70>there <00:02.20> (x2)\n" in rendered(rows, RESULT, with_words=True)


def test_lines_moved_by_the_old_times_with_their_offset() -> None:
    moved = movements(read_rows(LRC), RESULT)
    assert moved is not None
    assert (moved.lines, moved.worst_line) == (2, "Good night")
    assert (moved.mean_s, moved.worst_s) == (pytest.approx((0.2 + 1.5) / 2), pytest.approx(1.5))
    assert 1.4 < moved.p95_s < 1.5
    assert str(moved).startswith("2 lines moved by 0.85 s on average")


def test_a_text_without_times_has_not_moved() -> None:
    assert movements(read_rows("Hello there\nGood night"), RESULT) is None
    assert movements(read_rows("[00:01.00]Hello there. Good night."), RESULT) is None


def test_a_line_with_several_times_is_sung_each_time() -> None:
    rows = written_out(read_rows("[ti:T]\n[00:01.00][00:09.00]Again\nand more\n[00:05.00]Between"))
    assert [(row.parts.text, row.old_s) for row in rows if row.is_sung] == [
        ("Again", 1.0),
        ("and more", None),
        ("Between", 5.0),
        ("Again", 9.0),
    ]


def test_elrc_has_the_time_of_each_word_and_of_the_end() -> None:
    assert FORMATS["elrc"](RESULT).splitlines()[0] == "[00:01.20] <00:01.20>Hello <00:01.70>there <00:02.20>"
    assert FORMATS["elrc"](TranscriptResult(segments=[TranscriptSegment(text="x", start=MS)])) == "[00:00.00] x\n"
