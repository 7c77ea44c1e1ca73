"""How much of a growing window's answer may leave."""

from __future__ import annotations

import pytest
from answers import said
from hypothesis import given
from hypothesis import strategies as st

from backend.live.settled_text import settled
from backend.serving.protocols import Recognition, Token
from backend.transcript.scripts import pieces


def of_characters(text: str) -> Recognition:
    """A token for each two characters, as Chinese has them."""
    tokens = tuple(Token(1, begin, min(begin + 2, len(text))) for begin in range(0, len(text), 2))
    return Recognition(text, "zh", True, tokens)


@pytest.mark.parametrize(
    ("text", "agreed", "hold", "expected"),
    [
        ("Turn on the light please.", 99, 2, "Turn on the"),
        ("Turn on the light please.", 8, 2, "Turn on"),  # "the" is agreed in part
        ("Turn on the light please.", 6, 2, "Turn"),
        ("Turn on the light, and", 99, 1, "Turn on the light,"),
        ("Turn on the light, and", 17, 1, "Turn on the"),  # its comma is not agreed
        ("Turn it off.", 99, 0, "Turn it off"),  # every window ends in a full stop
        ("Yes.", 99, 2, ""),
        ("", 0, 2, ""),
        ("Well, no no no no no", 99, 0, "Well, no"),
        ("Put it on the table on the table.", 99, 0, "Put it on the table"),
        ("…", 99, 0, ""),
    ],
)
def test_what_is_settled(text: str, agreed: int, hold: int, expected: str) -> None:
    assert settled(said(text), agreed, hold) == expected


@pytest.mark.parametrize(("hold", "expected"), [(0, "一二三四五六七八"), (1, "一二三四五六"), (2, "一二三四")])
def test_where_words_have_no_spaces_tokens_are_held_back_too(hold: int, expected: str) -> None:
    assert settled(of_characters("一二三四五六七八。"), 99, hold) == expected


@given(st.text("ab .,一二", max_size=30), st.integers(0, 30), st.integers(0, 30), st.integers(0, 4), st.integers(0, 4))
def test_it_grows_with_the_agreement_and_shrinks_with_what_is_held_back(
    text: str, agreed: int, more: int, hold: int, further: int
) -> None:
    """L15; and that it is a beginning of the answer, within what is agreed, that does not end inside a word."""
    text = text.strip()
    answer = of_characters(text)
    found = settled(answer, agreed, hold)
    assert settled(answer, agreed + more, hold).startswith(found)
    assert found.startswith(settled(answer, agreed, hold + further))
    assert text.startswith(found)
    assert len(found) <= agreed
    ends = {end for begin, end in pieces(text)}
    assert not found or len(found) in ends or not any(char.isalnum() for char in text[len(found) :])
