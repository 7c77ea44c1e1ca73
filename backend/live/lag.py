"""How far text is behind its sound: from the arrival of a word's sound to the departure of the word.

When a word was said is known by its share of the text alone, which is laid over the speech of its window.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from backend.audio.waveform import SAMPLE_RATE
from backend.live.sound_window import Piece
from backend.transcript.pauses import SpeechClock
from backend.transcript.scripts import pieces


class Arrivals:
    """When which sound of a stream arrived."""

    def __init__(self) -> None:
        self._ends: list[int] = []  # of the messages, in samples of the stream
        self._times: list[float] = []

    def note(self, end: int, at: float) -> None:
        """The sound up to sample number `end` arrived at the time `at`."""
        self._ends.append(end)
        self._times.append(at)

    def forget_before(self, sample: int) -> None:
        """Nothing before `sample` will be asked for."""
        first = bisect_left(self._ends, sample)
        del self._ends[:first], self._times[:first]

    def lags(self, piece: Piece, text: str, sent: int, now: float) -> Iterator[float]:
        """Of each word of the piece's text behind the first `sent` characters: seconds from its arrival to `now`."""
        spoken = piece.speech.within_s(piece.chunk.start, piece.chunk.end)
        if not spoken or not self._ends:
            return
        clock = SpeechClock(spoken)
        for _, end in pieces(text):
            if end > sent:
                said_s = clock.word_end_s(clock.total_s * end / len(text))
                number = bisect_left(self._ends, piece.origin + round(said_s * SAMPLE_RATE))
                yield now - self._times[min(number, len(self._times) - 1)]
