"""Voice activity detection of sound that is still arriving: vad.py frame by frame, from the past alone.

The filter, the network and the rules are those of recordings. What differs: a frame's level is that of the sound before
it (levels.py), and a frame is judged when the next one is there, which the filter needs. So each likelihood is 32 ms
late, and at a first word the level is still that of the silence before.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backend.audio import silero
from backend.audio.high_pass import LAG, StreamedHighPass
from backend.audio.levels import CausalGain, frame_power
from backend.audio.waveform import Samples

_FRAME = silero.FRAME
assert LAG == _FRAME  # `_is_first` drops one frame


class NoDetector:
    """In place of a detector, where none runs: everything is speech."""

    def __init__(self) -> None:
        self._unjudged = 0  # samples, less than a frame

    def likelihoods(self, samples: Samples) -> NDArray[np.float32]:
        """As CausalDetector.likelihoods: ones."""
        frames, self._unjudged = divmod(self._unjudged + samples.size, _FRAME)
        return np.ones(frames, np.float32)

    def last_likelihoods(self) -> NDArray[np.float32]:
        """As CausalDetector.last_likelihoods."""
        frames, self._unjudged = int(self._unjudged > 0), 0
        return np.ones(frames, np.float32)


class CausalDetector:
    """The detector of one stream. It costs a thread about 0.2 ms for each frame of 32 ms."""

    def __init__(self) -> None:
        self._state = silero.State.empty(1)
        self._high_pass = StreamedHighPass()
        self._gain = CausalGain()
        self._unfiltered = np.zeros(0, np.float32)  # less than a frame
        self._is_first = True

    def likelihoods(self, samples: Samples) -> NDArray[np.float32]:
        """The speech likelihood, 0 to 1, of the frames that can be judged with these samples, (n,) -> (frames,).

        The frames of all calls together are those of all samples, less the last one or two.
        """
        sound = np.concatenate([self._unfiltered, samples])
        whole = sound.size // _FRAME * _FRAME
        self._unfiltered = sound[whole:]
        if not whole:
            return np.zeros(0, np.float32)
        filtered = self._high_pass.passed(sound[:whole])
        if self._is_first:
            filtered, self._is_first = filtered[LAG:], False
        gains = self._gain.of(frame_power(filtered))
        frames = np.clip(filtered.reshape(-1, _FRAME) * gains[:, None], -1, 1)
        found: NDArray[np.float32] = silero.likelihoods(frames[None], self._state)[0]
        return found

    def last_likelihoods(self) -> NDArray[np.float32]:
        """Those of the last frames, when no sound follows; a frame that is not full ends in silence."""
        missing = -self._unfiltered.size % _FRAME
        return self.likelihoods(np.zeros(missing + LAG, np.float32))
