"""What stands on a terminal after the captions were written, and what in a pipe."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devtools.live.captions import Captions, fitting
from devtools.tables import width


def screen(written: list[str]) -> list[str]:
    """The rows of a terminal: a carriage return and "erase to the end of the line" begin a row anew."""
    shown = "".join(written).replace("\x1b[2m", "").replace("\x1b[0m", "")
    return [row.rpartition("\r\x1b[K")[2] for row in shown.split("\n")]


def test_on_a_terminal_rows_are_wrapped_between_words_and_an_utterance_begins_a_line() -> None:
    written: list[str] = []
    captions = Captions(written.append, 50)
    for word in "The quick brown fox jumps over the lazy dog.".split():
        captions.add(f" {word}", 3.2)
        captions.behind(1.4)
    assert screen(written)[-1].endswith("dog. 1.4 s behind")
    captions.end()
    captions.add(" Good morning.", 71.9)
    captions.end()
    assert screen(written) == [
        "00:03  The quick brown fox jumps",
        "       over the lazy dog.",
        "01:11  Good morning.",
        "",
    ]


def test_what_a_row_says_never_changes() -> None:
    written: list[str] = []
    captions = Captions(written.append, 44)
    before: list[str] = []
    for word in ("one two three four five six seven eight nine ten " * 3).split():
        captions.add(f"{word} ", 0)
        rows = screen(written)
        assert rows[: len(before) - 1] == before[:-1]
        assert rows[len(before) - 1].startswith(before[-1].split("  1.")[0].rstrip()[:8]) if before else True
        before = rows
    assert all(width(row) <= 44 for row in before)


@given(st.lists(st.text("ab 一,.", max_size=12), max_size=12), st.integers(10, 60))
def test_all_text_is_shown_and_no_row_is_wider_than_the_terminal(deltas: list[str], columns: int) -> None:
    written: list[str] = []
    captions = Captions(written.append, columns)
    for delta in deltas:
        captions.add(delta, 0)
    captions.end()
    rows = screen(written)
    assert "".join("".join(row[7:] for row in rows).split()) == "".join("".join(deltas).split())
    assert all(width(row) <= max(columns, 27) for row in rows)


def test_in_a_pipe_the_text_is_written_as_it_comes_a_line_an_utterance() -> None:
    written: list[str] = []
    captions = Captions(written.append)
    for delta in ("The quick", " brown fox"):
        captions.add(delta, 61.0)
        captions.behind(2.0)
    assert written == ["01:01  ", "The quick", " brown fox"]
    captions.end()
    captions.end()
    captions.add("\nGood\nmorning.", 64.0)
    captions.end()
    assert "".join(written) == "01:01  The quick brown fox\n01:04  Good morning.\n"


@pytest.mark.parametrize(
    ("text", "room", "shown"),
    [("one two", 5, "one "), ("one two", 7, "one two"), ("one two", 3, "one"), ("onetwo", 3, "one"),
     ("一二三", 4, "一二"), ("一", 1, "一"), ("a b", 1, "a")],
)  # fmt: skip
def test_a_row_ends_with_a_word_where_there_is_one(text: str, room: int, shown: str) -> None:
    assert text[: fitting(text, room)] == shown
