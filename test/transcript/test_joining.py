"""Chunk texts are joined as their scripts are written."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.transcript.joining import join

PARTS = (
    "Hello.",
    " one two ",
    "你好。",
    "世界",
    "ไทย",
    "한국어.",
    "",
    "  ",
    "😀",
    "3",
    "“好”",
    "नमस्ते",
    "ខ្មែរ",
    "!",
    "かな、",
)


@settings(max_examples=150)
@given(st.lists(st.one_of(st.sampled_from(PARTS), st.text(max_size=8)), max_size=12))
def test_each_text_stands_at_its_offset_and_only_single_spaces_are_added(texts) -> None:
    joined, offsets = join(texts)
    end = 0
    for text, offset in zip(texts, offsets, strict=True):
        assert joined[offset : offset + len(text.strip())] == text.strip()
        assert joined[end:offset] in ("", " ")
        end = offset + len(text.strip())
    assert end == len(joined)
    assert joined == joined.strip()


@pytest.mark.parametrize(
    ("before", "after", "joined"),
    [
        ("The end.", "Next", "The end. Next"),
        ("你好", "世界", "你好世界"),
        ("你好。", "世界", "你好。世界"),
        ("你好,", "“世界”", "你好,“世界”"),
        ("你好。", "Hello", "你好。 Hello"),
        ("Hello。", "你好", "Hello。你好"),
        ("OK", "你好", "OK 你好"),
        ("価格は3", "5円", "価格は3 5円"),
        ("かな", "カナ", "かなカナ"),
        ("น้ำ", "ครับ", "น้ำครับ"),
        ("ລາວ", "ລາວ", "ລາວລາວ"),
        ("ខ្មែរ", "ខ្មែរ", "ខ្មែរខ្មែរ"),
        ("မြန်မာ။", "မြန်မာ", "မြန်မာ။မြန်မာ"),
        ("한국어를", "배워요", "한국어를 배워요"),
        ("नमस्ते", "दुनिया", "नमस्ते दुनिया"),
        ("...", "!", "... !"),
    ],
)
def test_two_texts_are_separated_as_their_scripts_are_written(before, after, joined) -> None:
    assert join([before, after])[0] == joined


def test_an_empty_text_adds_nothing_and_lies_at_the_current_end() -> None:
    assert join(["", " a ", "  ", "b", ""]) == ("a b", [0, 0, 1, 2, 3])


def test_nothing_joined_is_nothing() -> None:
    assert join([]) == ("", [])
