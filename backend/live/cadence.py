"""When a window that grows is decoded again: by its sound, not by the messages in which that comes.

A step that is due inside a message is taken at the message's end, and the next one is counted from where it was due.
So messages of 300 ms do not stretch a step of 1 s to 1.2 s.
"""

from __future__ import annotations

from backend.audio.silero import FRAME
from backend.audio.waveform import SAMPLE_RATE
from backend.live.endpointing import Endpointing
from backend.thresholds import LIVE_FIRST_SPEECH_S, LIVE_MIN_STEP_SHARE


class Cadence:
    """Positions are samples since the stream's beginning."""

    def __init__(self, step_s: float) -> None:
        self._step = round(step_s * SAMPLE_RATE)
        self._due: int | None = None  # None: as soon as there is enough speech
        self.decoded_to = 0  # where the last decoded piece ended

    def begin_window(self, sample: int) -> None:
        """A window begins there."""
        self.decoded_to, self._due = sample, None

    def is_due(self, heard: Endpointing, end: int) -> bool:
        """Whether the window, which goes up to `end`, is decoded now: there is a step of sound, and new speech."""
        return (
            (self._due is None or end >= self._due)
            and heard.speech_begin is not None
            and heard.speech_s >= LIVE_FIRST_SPEECH_S
            and heard.speech_end * FRAME > self.decoded_to
        )

    def note_due(self, end: int) -> None:
        """`is_due` has become true with the sound up to `end`."""
        self._due = end if self._due is None else self._due

    def note_decoded(self, end: int) -> None:
        """The window is decoded up to `end`."""
        self.decoded_to = end
        due = end if self._due is None else self._due
        self._due = max(due + self._step, end + round(LIVE_MIN_STEP_SHARE * self._step))
