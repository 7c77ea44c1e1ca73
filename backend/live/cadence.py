"""When a window that grows is decoded again: by its sound, not by the messages in which that comes.

A step that is due inside a message is taken at the message's end, and the next one is counted from where it was due.
So messages of 300 ms do not stretch a step of 1 s to 1.2 s.

In a pause the window is decoded as soon as its speech is whole, that is with all the silence behind it that a commit
takes. If the pause goes on and ends the utterance, that answer is the commit's: no decode is left to wait for.
"""

from __future__ import annotations

import logging

from backend.audio.silero import FRAME
from backend.audio.waveform import SAMPLE_RATE
from backend.live.endpointing import Endpointing
from backend.thresholds import LIVE_FIRST_SPEECH_S, LIVE_MIN_STEP_SHARE, LIVE_TAIL_S

_log = logging.getLogger(__name__)

_TAIL = round(LIVE_TAIL_S * SAMPLE_RATE)


def whole_speech(heard: Endpointing) -> int:
    """Where the piece ends that holds the speech so far, with the silence behind it."""
    return heard.speech_end * FRAME + _TAIL


class Cadence:
    """Positions are samples since the stream's beginning."""

    def __init__(self, step_s: float) -> None:
        self._step = round(step_s * SAMPLE_RATE)
        self._due: int | None = None  # None: as soon as there is enough speech
        self._is_slow = False
        self.took_s = 0.0  # the last decode
        self.decoded_to = 0  # up to where the window went at the last decode
        self.piece_end = 0  # where the piece ended that was decoded then

    def begin_window(self, sample: int) -> None:
        """A window begins there."""
        self.decoded_to = self.piece_end = sample
        self._due = None

    def is_due(self, heard: Endpointing, end: int) -> bool:
        """Whether the window, which goes up to `end`, is decoded now: there is a step of sound, or whole speech."""
        if heard.speech_begin is None or heard.speech_s < LIVE_FIRST_SPEECH_S:
            return False
        if end >= (whole := whole_speech(heard)):
            return whole > self.piece_end
        return (self._due is None or end >= self._due) and heard.speech_end * FRAME > self.decoded_to

    def note_due(self, end: int) -> None:
        """`is_due` has become true with the sound up to `end`."""
        self._due = end if self._due is None else self._due

    def note_decoded(self, end: int, piece_end: int) -> None:
        """The window up to `end` is decoded, as far as `piece_end`."""
        self.decoded_to, self.piece_end = end, piece_end
        due = end if self._due is None else min(self._due, end)
        self._due = max(due + self._step, end + round(LIVE_MIN_STEP_SHARE * self._step))

    def note_took(self, took_s: float) -> None:
        """A decode is done, after so many seconds. The log says once that the machine is too slow."""
        self.took_s = took_s
        if took_s * SAMPLE_RATE > self._step and not self._is_slow:
            self._is_slow = True
            _log.info("a live decode took %.1f s, longer than live_step_seconds; captions come more seldom", took_s)
