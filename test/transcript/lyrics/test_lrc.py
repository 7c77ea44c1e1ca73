"""What of a lyrics file is sung, and that nothing of it is changed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.transcript.lyrics.lrc import LyricLine, parse_line
from backend.transcript.lyrics.sung_lines import known_text, language_by_script, tokens


@pytest.mark.parametrize(
    ("line", "parsed"),
    [
        ("Hello there", LyricLine((), "", "Hello there", "")),
        ("  indented, kept ", LyricLine((), "", "  indented, kept ", "")),
        ("[00:12.50]Hello", LyricLine((12.5,), "", "Hello", "")),
        ("[00:12.00][01:30.5] Hello", LyricLine((12.0, 90.5), "", "Hello", "")),
        ("[1:02:50]Hello", LyricLine((62.5,), "", "Hello", "")),
        ("[00:03.00]", LyricLine((3.0,), "", "", "")),
        ("[ar: Somebody]", LyricLine((), "[ar: Somebody]", "", "")),
        ("[Verse 1: A & B]", LyricLine((), "[Verse 1: A & B]", "", "")),
        ("[anything at all]", LyricLine((), "[anything at all]", "", "")),
        ("【副歌】", LyricLine((), "【副歌】", "", "")),
        ("(Chorus)", LyricLine((), "(Chorus)", "", "")),
        ("[Chorus] Hello (x2)", LyricLine((), "[Chorus]", "Hello", "(x2)")),
        ("Hello [2x]", LyricLine((), "", "Hello", "[2x]")),
        ("Hello （×2）", LyricLine((), "", "Hello", "（×2）")),
        ("[00:01.20]<00:01.20>Hi <00:01.60>you", LyricLine((1.2,), "", "Hi you", "")),
        ("<00:01.00> a <00:02.00> b", LyricLine((), "", "a b", "")),
        ("(ooh, ooh) I <3 you", LyricLine((), "", "(ooh, ooh) I <3 you", "")),
        ("(Chorus of angels)", LyricLine((), "", "(Chorus of angels)", "")),
        ("the [expletive] dog", LyricLine((), "", "the [expletive] dog", "")),
        ("at 12:30 (x) we go", LyricLine((), "", "at 12:30 (x) we go", "")),
    ],
)
def test_what_is_not_sung_stands_beside_the_text(line: str, parsed: LyricLine) -> None:
    assert parse_line(line) == parsed


def test_lines_have_their_numbers_in_the_text_as_it_was_given() -> None:
    known = known_text("\ufeff[ti:x]\n\n[Chorus]\nHello world\n\n (hey)\r\n[00:01.00]Bye (x2)\n[Outro]\n")
    assert known.text == "Hello world\n\n (hey)\nBye"
    assert [(line.number, known.text[line.begin : line.end]) for line in known.lines] == [
        (4, "Hello world"),
        (6, "(hey)"),
        (7, "Bye"),
    ]


def test_a_text_without_line_breaks_is_prose_in_sentences() -> None:
    known = known_text("Hello world. Good morning! Bye")
    assert known.is_prose
    assert [known.text[line.begin : line.end] for line in known.lines] == ["Hello world.", "Good morning!", "Bye"]


@pytest.mark.parametrize("given", ["", "\n \n", "[Chorus]\n[00:01.00]\n", "\ufeff"])
def test_a_text_in_which_nothing_is_sung_has_no_lines(given: str) -> None:
    assert not known_text(given).lines


@settings(max_examples=200)
@given(st.lists(st.text(st.characters(exclude_characters="\n\r\x0b\x0c\x85\u2028\u2029[]()（）［］【】<>\ufeff"))))
def test_a_text_without_marks_stays_as_it_is(rows: list[str]) -> None:
    given = "\n".join(rows)
    known = known_text(given)
    assert [known.text[line.begin : line.end] for line in known.lines if not known.is_prose] == [
        row.strip() for row in rows if row.strip() and not known.is_prose
    ]
    assert "".join(known.text.split()) == "".join(given.split())


def test_syllable_blocks_and_characters_are_tokens_of_their_own() -> None:
    text = "좋은 아침, hi 狐狸。"
    assert [text[token.begin : token.end] for token in tokens(text)] == ["좋", "은", "아", "침,", "hi", "狐", "狸。"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Hello", ""),
        ("你好 baby", "zh"),
        ("こんにちは世界", "ja"),
        ("안녕", "ko"),
        ("Привет", "ru"),
        ("你 hello", ""),
        ("12", ""),
    ],
)
def test_the_script_may_say_the_language(text: str, code: str) -> None:
    assert language_by_script(text) == code
