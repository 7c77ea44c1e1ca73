"""Writes a recording to the store while it is decoded: mixed down, resampled, block by block."""

from __future__ import annotations

import math
import os
from collections.abc import Callable

import numpy as np
import soxr
from numpy.typing import NDArray

from backend.audio.decoding.causes import BAD_RATE, NOT_FINITE, TOO_LONG, TOO_MANY_CHANNELS
from backend.audio.decoding.downmix import Downmix
from backend.audio.decoding.protocol import FIRST_GRANT, next_grant, write_samples
from backend.audio.waveform import SAMPLE_RATE, Samples
from backend.errors import UndecodableAudio

BLOCK = 1 << 18  # samples of all channels together, 1 MiB as float32
_RATES = range(4_000, 768_001)  # Hz; below, 64 KB of file become gigabytes of sound; above, nothing records
_MAX_CHANNELS = 32


class SampleWriter:
    """Takes decoded blocks and writes mono float32 at 16 kHz to the store.

    Raises UndecodableAudio for what no recording has (rate, channels, length, samples), at the first such block.
    """

    def __init__(self, store: int, max_seconds: float, more: Callable[[], None] = lambda: None) -> None:
        """`more` is called before the store becomes larger than was granted (protocol.py)."""
        self._more = more
        self._granted = FIRST_GRANT
        self.frames = 0  # of the source, added so far
        self._max_seconds = max_seconds
        self._store = store
        self._written = 0  # samples in the store
        self._peak = 0.0
        self._rate = 0
        self._rate_since = 0  # the first frame at this rate
        self._earlier_s = 0.0  # duration of the frames before that
        self._resampler: soxr.ResampleStream | None = None
        self._downmix = Downmix()
        self._unmixed: list[NDArray[np.float32]] = []  # blocks of several channels, which are judged together
        self._unmixed_samples = 0

    @property
    def cancelled_s(self) -> float:
        """Seconds in which channels cancelled each other out; complete after `finish`."""
        return self._downmix.cancelled_s

    @property
    def duration_s(self) -> float:
        return self._earlier_s + ((self.frames - self._rate_since) / self._rate if self._rate else 0.0)

    @property
    def left_s(self) -> float:
        """Seconds of sound that the longest recording has room for."""
        return self._max_seconds - self.duration_s

    def add(self, block: NDArray[np.float32], rate: int) -> None:
        """Add sound at `rate` Hz, shape (frames, channels), frames >= 1."""
        frames, channels = block.shape
        if self._unmixed and channels != self._unmixed[0].shape[1]:
            self._mix()
        if rate != self._rate:  # at the start, and where joined files change it
            self._set_rate(rate)
        if channels > _MAX_CHANNELS:
            raise UndecodableAudio(TOO_MANY_CHANNELS)
        self.frames += frames
        if self.duration_s > self._max_seconds:
            raise UndecodableAudio(TOO_LONG)
        if not np.isfinite(block).all():
            raise UndecodableAudio(NOT_FINITE)
        if channels == 1:
            self._resample(block[:, 0])
            return
        self._unmixed.append(block)
        self._unmixed_samples += block.size
        if self._unmixed_samples > BLOCK - channels:
            self._mix()

    def add_silence(self, seconds: float, rate: int) -> None:
        """Add so many seconds of silence at `rate` Hz, in blocks."""
        left = round(seconds * rate)
        while left > 0:
            self.add(np.zeros((min(left, BLOCK), 1), np.float32), rate)
            left -= BLOCK

    def finish(self) -> int:
        """Flush and scale. Returns the number of samples in the store, all within [-1, 1] now."""
        self._set_rate(SAMPLE_RATE)  # flushes the resampler
        if not self._written:  # a sample or two at a high rate round to none
            self._write(np.zeros(1, np.float32))
        if self._peak > 1:
            size = self._written * np.dtype(np.float32).itemsize
            for begin in range(0, size, 4 * BLOCK):
                loud = np.frombuffer(os.pread(self._store, 4 * BLOCK, begin), np.float32)
                write_samples(self._store, loud / np.float32(self._peak), begin)
        return self._written

    def _mix(self) -> None:
        """Mix down the blocks that wait."""
        waiting, self._unmixed, self._unmixed_samples = self._unmixed, [], 0
        if waiting:
            block = waiting[0] if len(waiting) == 1 else np.concatenate(waiting)
            self._resample(self._downmix.mix(block, self._rate))

    def _resample(self, mono: Samples) -> None:
        self._write(mono if self._resampler is None else self._resampler.resample_chunk(mono))

    def _set_rate(self, rate: int) -> None:
        self._mix()
        if rate not in _RATES:
            raise UndecodableAudio(BAD_RATE)
        self._earlier_s, self._rate_since = self.duration_s, self.frames
        if self._resampler is not None:
            self._write(self._resampler.resample_chunk(np.empty(0, np.float32), last=True))
        # HQ: as the model's own loader resamples (librosa's soxr_hq). n samples become round(n * 16000 / rate).
        self._resampler = None if rate == SAMPLE_RATE else soxr.ResampleStream(rate, SAMPLE_RATE, 1, quality="HQ")
        self._rate = rate

    def _write(self, mono: Samples) -> None:
        if not mono.size:
            return
        highest, lowest = float(mono.max()), float(mono.min())
        if not math.isfinite(highest - lowest):  # finite samples near float32's limit can overflow in the mix
            raise UndecodableAudio(NOT_FINITE)
        self._peak = max(self._peak, highest, -lowest)
        while self._written + mono.size > self._granted:
            self._more()
            self._granted = next_grant(self._granted)
        write_samples(self._store, mono, self._written * mono.itemsize)
        self._written += mono.size
