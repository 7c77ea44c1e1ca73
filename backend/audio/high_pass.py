"""A high-pass filter for the detector: mains hum, wind and rumble decide neither levels nor what is speech.

Linear phase, by blocks in the frequency domain: nothing is shifted in time. The models hear the sound as it is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backend.audio.waveform import SAMPLE_RATE, Samples
from backend.thresholds import HIGH_PASS_FROM_HZ, HIGH_PASS_UP_TO_HZ

_BLOCK = 8192  # samples that are transformed at a time
_TAPS = 1025  # of the filter: 64 ms, which is what a transition of 100 Hz takes
_HOP = _BLOCK - _TAPS + 1


def _impulse_response() -> NDArray[np.float64]:
    hz = np.fft.rfftfreq(_BLOCK, 1 / SAMPLE_RATE)
    rise = np.clip((hz - HIGH_PASS_FROM_HZ) / (HIGH_PASS_UP_TO_HZ - HIGH_PASS_FROM_HZ), 0, 1)
    ideal = np.fft.irfft(0.5 - 0.5 * np.cos(np.pi * rise), _BLOCK)
    return np.asarray(np.roll(ideal, _TAPS // 2)[:_TAPS] * np.hanning(_TAPS + 2)[1:-1])


_RESPONSE = np.fft.rfft(_impulse_response(), _BLOCK).astype(np.complex64)


def high_passed(samples: Samples) -> Samples:
    """The samples, shape (n,), without what is below HIGH_PASS_FROM_HZ, and without any offset."""
    found = np.empty(samples.size, np.float32)
    for begin in range(0, samples.size, _HOP):
        origin = begin - _TAPS // 2  # of the block, which may reach beyond both ends
        seen = samples[max(origin, 0) : origin + _BLOCK]
        block = np.zeros(_BLOCK, np.float32)
        block[max(-origin, 0) :][: seen.size] = seen
        passed = np.fft.irfft(np.fft.rfft(block) * _RESPONSE, _BLOCK)[_TAPS - 1 :]
        found[begin : begin + _HOP] = passed[: samples.size - begin]
    return found


LAG = _TAPS // 2  # samples by which StreamedHighPass is behind: one frame of the detector
_STREAMED_BLOCK = _TAPS - 1 + LAG
_STREAMED_RESPONSE = np.fft.rfft(_impulse_response(), _STREAMED_BLOCK).astype(np.complex64)


class StreamedHighPass:
    """The same filter for sound that is still arriving."""

    def __init__(self) -> None:
        self._before = np.zeros(_TAPS - 1, np.float32)

    def passed(self, samples: Samples) -> Samples:
        """As many samples, (n × LAG,), but LAG earlier: the first ones belong to silence before the stream."""
        sound = np.concatenate([self._before, samples])
        self._before = sound[-_TAPS + 1 :]
        blocks = np.lib.stride_tricks.sliding_window_view(sound, _STREAMED_BLOCK)[::LAG]
        passed = np.fft.irfft(np.fft.rfft(blocks) * _STREAMED_RESPONSE, _STREAMED_BLOCK)[:, _TAPS - 1 :]
        return passed.astype(np.float32).reshape(-1)
