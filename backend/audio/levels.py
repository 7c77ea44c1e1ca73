"""How much each frame of a recording is amplified before the detector hears it: evening out of levels.

Loudness is not speech, so everything sustained is brought to one level. It is that of the loudest sustained sound
nearby; but where the sound beside a frame rises and falls as a voice does, its own level counts, so a loud sound does
not silence a quiet voice beside it. Loud sound is not turned down.

`gain` hears both sides of a frame. `CausalGain` hears only what came before it, for sound that is still arriving.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backend.audio import silero
from backend.audio.waveform import SAMPLE_RATE, Samples
from backend.thresholds import (
    CAUSAL_VOICE_RANGE_DB,
    LEVEL_CONTEXT_S,
    LEVEL_EDGE_S,
    LEVEL_SIDE_S,
    MAX_GAIN,
    SUSTAINED_FRAMES,
    TARGET_RMS,
    VOICE_RANGE_DB,
)

Floats = NDArray[np.float32]

_FRAME = silero.FRAME
_CONTEXT_FRAMES = int(LEVEL_CONTEXT_S * SAMPLE_RATE) // _FRAME
_SIDE_FRAMES = int(LEVEL_SIDE_S * SAMPLE_RATE) // _FRAME
_EDGE_FRAMES = int(LEVEL_EDGE_S * SAMPLE_RATE) // _FRAME
_VOICE_RANGE = 10 ** (VOICE_RANGE_DB / 10)
_CAUSAL_VOICE_RANGE = 10 ** (CAUSAL_VOICE_RANGE_DB / 10)


def frame_power(samples: Samples) -> Floats:
    """The mean square of each frame, shape (frames,), of samples (n,); of what there is of the last one."""
    whole = samples.size // _FRAME
    frames = samples[: whole * _FRAME].reshape(whole, _FRAME)
    power: Floats = np.einsum("ij,ij->i", frames, frames) / _FRAME  # einsum: no copy of squares
    if rest := samples.size - whole * _FRAME:
        power = np.append(power, np.square(samples[-rest:]).sum() / _FRAME)
    return power


def gain(power: Floats) -> Floats:
    """Amplification of each frame, 1 to MAX_GAIN, shape (frames,), that brings its level to TARGET_RMS.

    A level is what lasts SUSTAINED_FRAMES, or a click would hide quiet speech. Nearby is LEVEL_CONTEXT_S on both sides.
    """
    if not power.size:
        return np.zeros(0, np.float32)
    sustained = -_loudest(-power, SUSTAINED_FRAMES // 2, SUSTAINED_FRAMES // 2)
    nearby = _loudest(sustained, _CONTEXT_FRAMES, _CONTEXT_FRAMES)
    sides = [
        _level_of_side(power, sustained, nearby, reach, _VOICE_RANGE)
        for reach in ((_SIDE_FRAMES, 0), (0, _SIDE_FRAMES))
    ]
    return _gain_of(np.maximum(np.minimum(*sides), _loudest(sustained, _EDGE_FRAMES, _EDGE_FRAMES)))


class CausalGain:
    """The same of sound that is still arriving: levels are those of the frame and of what came before it."""

    def __init__(self) -> None:
        self._power = np.zeros(0, np.float32)  # of the last frames, as many as a level depends on

    def of(self, power: Floats) -> Floats:
        """Amplification of the next frames, (frames,) -> (frames,)."""
        known = np.concatenate([self._power, power])
        self._power = known[-_CONTEXT_FRAMES - SUSTAINED_FRAMES :]
        if not power.size:
            return np.zeros(0, np.float32)
        sustained = -_loudest(-known, SUSTAINED_FRAMES - 1, 0)
        nearby = _loudest(sustained, _CONTEXT_FRAMES, 0)
        level = _level_of_side(known, sustained, nearby, (_SIDE_FRAMES, 0), _CAUSAL_VOICE_RANGE)
        return _gain_of(level[-power.size :])


def _level_of_side(
    power: Floats, sustained: Floats, nearby: Floats, reach: tuple[int, int], voice_range: float
) -> Floats:
    """The level on one side of each frame: its own where it rises and falls as a voice does, else that of `nearby`."""
    loudest, quietest = _loudest(sustained, *reach), -_loudest(-power, *reach)
    return np.where(loudest > voice_range * quietest, loudest, nearby)


def _gain_of(level: Floats) -> Floats:
    gains: Floats = np.clip(TARGET_RMS / np.sqrt(np.maximum(level, 1e-24)), 1.0, MAX_GAIN).astype(np.float32)
    return gains


def _loudest(values: Floats, before: int, after: int) -> Floats:
    """The largest of each value and so many before and after it, shape (n,)."""
    padded = np.pad(values, (before, after), mode="edge")
    largest: Floats = np.lib.stride_tricks.sliding_window_view(padded, before + after + 1).max(axis=1)
    return largest
