"""How sound is cut into messages, and when each is due: as the gateway's microphone loop does it.

The loop runs every 300 ms. Its first message has all that was held back before the turn began, half a second of sound;
the last sample is held back each time and leaves with the next message. Times are seconds of the stream's clock, which
is 0 when the first sample is spoken: sample n is spoken at n / 16000, and a message is due when its last one has been.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from backend.audio.waveform import SAMPLE_RATE

TICK_S, FIRST_S = 0.3, 0.5


class Message(NamedTuple):
    """The samples [first, last) of the sound; `due_s`: when they are sent."""

    due_s: float
    first: int
    last: int


def gateway_messages(size: int) -> Iterator[Message]:
    """The messages of `size` samples, each sample once and in order; none for no samples."""
    first, spoken = 0, round(FIRST_S * SAMPLE_RATE)
    while spoken < size:
        yield Message(spoken / SAMPLE_RATE, first, spoken - 1)
        first, spoken = spoken - 1, spoken + round(TICK_S * SAMPLE_RATE)
    if first < size:
        yield Message(size / SAMPLE_RATE, first, size)
