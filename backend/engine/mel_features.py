"""Log-mel features of a recording, as Whisper computes them and Qwen3-ASR was trained with.

Source: openai/whisper, audio.py; transformers 4.57.6, WhisperFeatureExtractor, whose features are equal to the bit
(test_mel_features.py). Computed on the CPU, for one clip at a time: beside a longer clip the last frame would be
another.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from backend.errors import CheckpointRefused
from backend.serving.protocols import SAMPLE_RATE

_HIGHEST_HZ = 8000.0
_LOG_FLOOR = 1e-10
_DYNAMIC_RANGE = 8.0  # powers of ten below the clip's maximum
# Slaney's mel scale (Auditory Toolbox, 1998): linear up to 1 kHz, which is 15 mel, then 27 mel for a factor of 6.4.
_LINEAR_HZ_PER_MEL, _LOG_FROM_HZ, _LOG_FROM_MEL, _LOG_STEP = 200.0 / 3.0, 1000.0, 15.0, math.log(6.4) / 27.0


class MelFeatures:
    """Recordings at 16 kHz -> their features; from any thread. `chunk_length`: as the file says, whatever it is."""

    def __init__(self, config: dict[str, Any], mels: int) -> None:
        """`config`: the content of preprocessor_config.json; `mels`: that the encoder takes. Raises CheckpointRefused.

        Keys that are missing have the values of WhisperFeatureExtractor.
        """
        if config.get("sampling_rate", SAMPLE_RATE) != SAMPLE_RATE:
            raise CheckpointRefused(f"the checkpoint's features are not made of {SAMPLE_RATE} samples a second")
        if config.get("feature_size", 80) != mels:
            raise CheckpointRefused(f"the checkpoint's features have not the {mels} mel bins that its encoder takes")
        self.chunk_length: Any = config.get("chunk_length")
        self._n_fft: int = config.get("n_fft", 400)
        self._hop: int = config.get("hop_length", 160)
        self._dither = float(config.get("dither") or 0.0)
        self._window = torch.hann_window(self._n_fft, dtype=torch.float32)
        self._filters = torch.from_numpy(_mel_filters(self._n_fft, mels)).float().T

    def __call__(self, samples: NDArray[np.float32]) -> torch.Tensor:
        """(n,) samples -> (mels, n / hop) float32, from about -1 to 1."""
        waveform = torch.from_numpy(samples)[None]
        if self._dither:
            waveform = waveform + self._dither * torch.randn(waveform.shape)
        spectrum = torch.stft(waveform, self._n_fft, self._hop, window=self._window, return_complex=True)
        power = spectrum[..., :-1].abs() ** 2
        log_mel = (self._filters @ power).clamp(min=_LOG_FLOOR).log10()[0]
        return (torch.maximum(log_mel, log_mel.max() - _DYNAMIC_RANGE) + 4.0) / 4.0


def _mel_filters(n_fft: int, mels: int) -> NDArray[np.float64]:
    """Triangular filters of equal area, (frequencies, mels)."""
    top = _LOG_FROM_MEL + math.log(_HIGHEST_HZ / _LOG_FROM_HZ) / _LOG_STEP
    edges = _mel_to_hertz(np.linspace(0.0, top, mels + 2))
    frequencies = np.linspace(0, SAMPLE_RATE // 2, n_fft // 2 + 1)
    widths = np.diff(edges)
    distances = edges[None, :] - frequencies[:, None]
    rising, falling = -distances[:, :-2] / widths[:-1], distances[:, 2:] / widths[1:]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    filters: NDArray[np.float64] = triangles * (2.0 / (edges[2:] - edges[:-2]))
    return filters


def _mel_to_hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    hertz = _LINEAR_HZ_PER_MEL * mel
    is_log = mel >= _LOG_FROM_MEL
    hertz[is_log] = _LOG_FROM_HZ * np.exp(_LOG_STEP * (mel[is_log] - _LOG_FROM_MEL))
    return hertz
