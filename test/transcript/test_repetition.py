"""A repetition at the end is reduced to one phrase, and nothing else is changed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.transcript.repetition import collapse_repetition


@pytest.mark.parametrize(
    ("text", "once"),
    [
        ("Well, so it is so it is so it is so it", "Well, so it is"),
        ("Ha ha ha ha ha ha", "Ha ha"),
        ("谢谢谢谢谢谢谢谢", "谢"),
        ("好的。好的。好的。好的。", "好的。"),
        ("We went home. The end. The end. The end.", "We went home. The end."),
        ("aaaa", "a"),
        ("At the end. The end. The end. The end.", "At the end. The end."),
    ],
)
def test_a_repetition_at_the_end_is_reduced_to_one_phrase(text: str, once: str) -> None:
    assert collapse_repetition(text) == once


@pytest.mark.parametrize("text", ["", "No, no.", "bye bye", "One two three.", "ha ha ha and then he left", "100"])
def test_a_text_without_a_final_repetition_is_unchanged(text: str) -> None:
    assert collapse_repetition(text) == text


@settings(max_examples=200)
@given(st.text("ab .", max_size=12), st.text("xyz", min_size=1, max_size=9), st.integers(3, 9))
def test_the_result_begins_the_text_and_no_longer_repeats(head: str, phrase: str, turns: int) -> None:
    text = head + phrase * turns
    once = collapse_repetition(text)
    assert text.startswith(once)
    assert len(once) <= len(head) + len(phrase)
    assert set(once) >= set(phrase)
