"""Which of the sent text stands for the sound before a cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.live.utterance_recognition import _end_before_cut
from backend.transcript.joining import join


@pytest.mark.parametrize(
    ("sent", "text", "before"),
    [
        ("One two three four", "One two.", "One two"),
        ("One two three four", "one, too.", "One two"),
        ("One two", "One two three.", "One two"),
        ("One two three", "", ""),
        ("", "One.", ""),
        ("我有iPhone手机", "我有。", "我"),  # joining 我有 and iPhone would add a space that was not sent
        ("一二三四", "一二。", "一二"),
    ],
)
def test_it_ends_where_the_text_of_that_sound_does(sent: str, text: str, before: str) -> None:
    assert sent[: _end_before_cut(sent, text)] == before


@given(st.text("ab 一二.,", max_size=20), st.text("ab 一二.,", max_size=20))
def test_both_parts_joined_are_what_was_sent(sent: str, text: str) -> None:
    sent = sent.strip()
    end = _end_before_cut(sent, text.strip())
    assert join([sent[:end], sent[end:]])[0] == sent
