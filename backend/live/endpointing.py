"""Endpointing: where speech begins and ends in sound that is still arriving, by the likelihood of each frame.

The rules are those by which audio/vad.py finds spans in a whole recording, so what counts as speech here is a span
there: frames over the threshold, with shorter silences between them, if there are enough of them.
"""

from __future__ import annotations

from backend.audio.silero import FRAME
from backend.audio.vad import SpeechRules, min_speech_frames, on_threshold, silence_frames
from backend.audio.waveform import SAMPLE_RATE


class Endpointing:
    """The speech since frame `first`. Numbers are those of frames of 512 samples."""

    def __init__(self, rules: SpeechRules, first: int = 0) -> None:
        self._rules = rules
        self._on = on_threshold(rules)
        self._min_frames = min_speech_frames(rules)
        self._silence = silence_frames(rules)
        self.frames = first  # that have been heard, with those before `first`
        self.speech_begin: int | None = None  # first frame of the speech
        self.speech_end = first  # the frame behind its last one
        self._speech_frames = 0  # of the spans before the current one
        self._begin: int | None = None  # first frame over the threshold of the current span
        self._last_on: int | None = None  # the last frame of the current span
        self._over = 0  # its frames over the threshold

    @property
    def onset(self) -> int:
        """The first frame that is speech, or may turn out to be; the next frame where there is none."""
        if self.speech_begin is not None:
            return self.speech_begin
        return self.frames if self._begin is None else self._begin

    @property
    def speech_s(self) -> float:
        """Seconds of speech."""
        current = self.speech_end - self._begin if self._is_speech and self._begin is not None else 0
        return (self._speech_frames + current) * FRAME / SAMPLE_RATE

    @property
    def _is_speech(self) -> bool:
        return self._over >= self._min_frames

    def hear(self, likelihood: float) -> None:
        """Take the likelihood of the next frame."""
        number = self.frames
        self.frames += 1
        if likelihood < self._on:
            return
        if self._last_on is not None and number - self._last_on - 1 >= self._silence:
            self._end_span()
        self._last_on = number
        if likelihood >= self._rules.threshold:
            self._begin = number if self._begin is None else self._begin
            self._over += 1
        if self._is_speech:
            self.speech_begin = self._begin if self.speech_begin is None else self.speech_begin
            self.speech_end = number + 1

    def _end_span(self) -> None:
        if self._is_speech and self._begin is not None:
            self._speech_frames += self.speech_end - self._begin
        self._begin, self._over = None, 0
