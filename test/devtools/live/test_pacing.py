"""Messages as the gateway cuts them: each sample once, in order, the last one held back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devtools.live.pacing import gateway_messages


@given(st.integers(0, 200_000))
def test_every_sample_is_sent_once_and_in_order(size: int) -> None:
    messages = list(gateway_messages(size))
    ends = [message.last for message in messages]
    assert [message.first for message in messages] == [0, *ends][: len(messages)]
    assert [0, *ends][-1] == size
    assert all(message.last > message.first for message in messages)


@given(st.integers(1, 200_000))
def test_no_message_is_due_before_its_sound_was_spoken(size: int) -> None:
    messages = list(gateway_messages(size))
    assert all(message.due_s >= message.last / 16_000 for message in messages)
    assert [message.due_s for message in messages] == sorted(message.due_s for message in messages)


def test_the_first_message_has_half_a_second_and_the_others_300_ms_with_a_sample_held_back() -> None:
    first, second, third, *_ = gateway_messages(32_000)
    assert (first.due_s, second.due_s) == pytest.approx((0.5, 0.8))
    assert (first.first, first.last, second.last) == (0, 7_999, 12_799)
    assert third.last - third.first == 4_800
