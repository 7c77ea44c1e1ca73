"""What a live stream says: settled text, words with their times, and the end of an utterance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class LiveWord(NamedTuple):
    """A word of the text, with its times in seconds since the stream began."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class LiveEvent:
    """`delta`: text that goes on from all deltas before it. `eou`: behind it, the speaker has come to an end."""

    delta: str = ""
    words: tuple[LiveWord, ...] = ()
    eou: bool = False

    def then(self, following: LiveEvent) -> LiveEvent | None:
        """Both as one, for a client that has not read this one yet; None where that would hide their order."""
        if self.eou or self.words:
            return None
        return LiveEvent(self.delta + following.delta, following.words, following.eou)
