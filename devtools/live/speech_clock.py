"""About how far captions are behind the speaker, from what a client knows: how loud the sound is, and what was shown.

No reply says which sound a delta belongs to. So the time of speech is counted (blocks of sound that are no more than
30 dB below the loudest of the last ten seconds), and letters are taken to be spoken evenly in it. How many there are in
a second is learnt at every pause in which the captions had caught up.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from backend.audio.waveform import SAMPLE_RATE, Samples

_BLOCK = SAMPLE_RATE // 50
_RANGE = 10 ** (-30 / 20)  # of levels that count as speech, below the loudest
_LOUDEST_BLOCKS = 500
_SILENT = 1e-4  # a level below which nothing is speech
_LETTERS_PER_S = 14.0  # of English, until the first pause
_PAUSE_S = 0.5


class SpeechClock:
    """`hear` the sound in order, `shown` the letters; times are seconds since the first sample."""

    def __init__(self) -> None:
        self._rest = np.zeros(0, np.float32)
        self._levels: deque[float] = deque(maxlen=_LOUDEST_BLOCKS)
        self._blocks = 0
        self._ends_s: list[float] = []  # of each block of speech
        self.resumed_s = 0.0  # when speech began after the last pause
        self._letters = 0
        self._letters_per_s = _LETTERS_PER_S
        self._known = 0, 0.0  # letters and seconds of speech when the captions had last caught up

    def hear(self, samples: Samples) -> None:
        sound = np.concatenate([self._rest, samples])
        whole = sound.size // _BLOCK
        self._rest = sound[whole * _BLOCK :]
        for block in sound[: whole * _BLOCK].reshape(whole, _BLOCK):
            level = float(np.sqrt(np.mean(np.square(block))))
            self._levels.append(level)
            self._blocks += 1
            if level >= max(max(self._levels) * _RANGE, _SILENT):
                self._speech_until(self._blocks * _BLOCK / SAMPLE_RATE)

    def _speech_until(self, end_s: float) -> None:
        if not self._ends_s or end_s - self._ends_s[-1] > _PAUSE_S:
            self.resumed_s = end_s - _BLOCK / SAMPLE_RATE
        self._ends_s.append(end_s)

    def shown(self, text: str) -> None:
        self._letters += sum(not character.isspace() for character in text)

    def caught_up(self) -> None:
        """All that was said is shown."""
        letters, spoken_s = self._letters, len(self._ends_s) * _BLOCK / SAMPLE_RATE
        if letters and spoken_s:
            self._letters_per_s = letters / spoken_s
        self._known = letters, spoken_s

    def behind_s(self, now_s: float) -> float:
        """Seconds since the last shown letter was spoken; 0 where no speech is without its letters."""
        letters, spoken_s = self._known
        position_s = spoken_s + (self._letters - letters) / self._letters_per_s
        blocks = round(position_s * SAMPLE_RATE / _BLOCK)
        if blocks >= len(self._ends_s):
            return 0.0
        return max(now_s - self._ends_s[max(blocks - 1, 0)], 0.0)
