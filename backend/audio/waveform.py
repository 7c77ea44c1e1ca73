"""Audio inside this backend: mono float32 samples at 16 kHz, as recordings and as chunks of them.

Positions and lengths are sample counts, without a unit in their names; names in seconds end in `_s`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 16_000  # what Qwen3-ASR's mel front end was trained on
SAMPLE_BYTES = np.dtype(np.float32).itemsize

Samples: TypeAlias = NDArray[np.float32]  # shape (n,), within [-1, 1]


class Flaw(IntFlag):
    """What the decoder found wrong with a file that it could decode; the reply warns of each."""

    NONE = 0
    TRUNCATED = 1  # it is truncated or damaged; the samples are what could be decoded
    CANCELLED = 2  # channels cancelled each other out, and were kept from it
    UNREAD = 4  # it is much longer than its headers account for, and the rest is no sound


@dataclass(frozen=True)
class Decoded:
    """A recording: `samples` of shape (n,), n >= 1, within [-1, 1], 16 kHz; `duration_s` is that of the source.

    The sound is that of track `track` of `tracks`, from 1. `attempt`: see DecoderPool.decode.
    """

    samples: Samples
    duration_s: float
    flaws: Flaw = Flaw.NONE
    tracks: int = 1
    track: int = 1
    attempt: int = 0

    @property
    def truncated(self) -> bool:
        return Flaw.TRUNCATED in self.flaws


@dataclass(frozen=True)
class Chunk:
    """A piece of a recording: its `samples`, of which the first is sample number `start` of the recording."""

    start: int
    samples: Samples

    @property
    def end(self) -> int:
        return self.start + self.samples.size

    @property
    def start_s(self) -> float:
        return self.start / SAMPLE_RATE

    @property
    def end_s(self) -> float:
        return self.end / SAMPLE_RATE

    @property
    def duration_s(self) -> float:
        return self.samples.size / SAMPLE_RATE
