"""About how far captions are behind the speaker, from what a client knows: when somebody spoke, and what was shown.

No reply says which sound a delta belongs to. So the time of speech is counted, by the backend's own detector, and
letters are taken to be spoken evenly in it. How many there are in a second is learnt at the end of each utterance;
before the first one nothing is known.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from backend.audio.causal_vad import CausalDetector
from backend.audio.silero import FRAME
from backend.audio.waveform import SAMPLE_RATE, Samples

_BLOCK_S = FRAME / SAMPLE_RATE
_SPEECH = 0.5  # likelihood
_PAUSE_S = 0.5  # in which an utterance may have ended

Judge = Callable[[Samples], NDArray[np.float32]]  # the likelihoods of frames that have become complete


class SpeechClock:
    """`hear` the sound in order, `shown` the letters; times are seconds since the first sample."""

    def __init__(self, judge: Judge | None = None) -> None:
        self._judge = judge or CausalDetector().likelihoods
        self._blocks = 0
        self._ends_s: list[float] = []  # of each block of speech
        self._pauses_s: list[float] = []  # when each began that is over
        self._resumed_s: list[float] = []  # and ended
        self._letters = 0
        self._letters_per_s = 0.0
        self._known = 0, 0  # letters and blocks of speech at the end of the last utterance

    def hear(self, samples: Samples) -> None:
        for likelihood in self._judge(samples):
            self._blocks += 1
            if likelihood >= _SPEECH:
                self._speak_until(self._blocks * _BLOCK_S)

    def _speak_until(self, end_s: float) -> None:
        before_s = self._ends_s[-1] if self._ends_s else -_PAUSE_S
        if end_s - _BLOCK_S - before_s >= _PAUSE_S:
            self._pauses_s.append(before_s)
            self._resumed_s.append(end_s - _BLOCK_S)
        self._ends_s.append(end_s)

    def shown(self, text: str) -> None:
        self._letters += sum(not character.isspace() for character in text)

    def utterance_ended(self, now_s: float) -> None:
        """All that was said before the last pause is shown."""
        if not self._ends_s:
            return
        pauses_s = [*self._pauses_s, self._ends_s[-1]]
        blocks = bisect_right(self._ends_s, pauses_s[max(bisect_right(pauses_s, now_s - _PAUSE_S) - 1, 0)])
        letters, before = self._known
        if self._letters > letters and blocks > before:
            self._letters_per_s = self._letters / (blocks * _BLOCK_S)
            self._known = self._letters, blocks

    def began_s(self, after_s: float) -> float:
        """When the speech began that was not over `after_s`, the time at which the one before it was shown."""
        following = bisect_right(self._pauses_s, after_s - _PAUSE_S) - 1
        return self._resumed_s[following] if following >= 0 else 0.0

    def resumed_after(self, at_s: float) -> bool:
        """Whether speech has begun anew since then."""
        return bool(self._resumed_s) and self._resumed_s[-1] > at_s

    def behind_s(self, now_s: float) -> float | None:
        """Seconds since the last shown letter was spoken; 0 where no speech is without letters, None: not known yet."""
        if not self._letters_per_s:
            return None
        letters, blocks = self._known
        blocks += round((self._letters - letters) / self._letters_per_s / _BLOCK_S)
        return max(now_s - self._ends_s[max(blocks - 1, 0)], 0.0) if blocks < len(self._ends_s) else 0.0
