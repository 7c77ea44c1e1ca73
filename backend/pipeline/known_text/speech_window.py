"""Windows of a recording's speech, without the long pauses between: what an aligner alone is given at once."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backend.audio.waveform import SAMPLE_RATE, Chunk, Samples
from backend.serving.protocols import AlignedUnit
from backend.transcript.timing import Times


@dataclass(frozen=True)
class SpeechWindow:
    """Sound without long pauses. `pieces`: (begin in the window, begin in the recording) in samples, for each part."""

    samples: Samples
    pieces: tuple[tuple[int, int], ...]

    def sample(self, at: int) -> int:
        """The sample of the recording that sample `at` of the window is; at a seam the one before it."""
        begin, real = self.pieces[max(bisect_left(self.pieces, (at, 0)) - 1, 0)]
        return real + at - begin

    def times_s(self, unit: AlignedUnit) -> Times:
        """The times of a unit in seconds of the recording: in the part of the window that holds most of it."""
        edges = [begin / SAMPLE_RATE for begin, _ in self.pieces] + [self.samples.size / SAMPLE_RATE]
        first = max(bisect_right(edges, unit.start_s) - 1, 0)
        parts = range(first, max(bisect_left(edges, unit.end_s), first + 1))
        part = max(parts, key=lambda at: min(edges[at + 1], unit.end_s) - max(edges[at], unit.start_s))
        by_s = self.pieces[part][1] / SAMPLE_RATE - edges[part]
        return max(edges[part], unit.start_s) + by_s, min(edges[part + 1], unit.end_s) + by_s


def speech_window(chunks: Sequence[Chunk], position: int, max_s: float) -> SpeechWindow:
    """The speech from sample `position` on, at most `max_s` seconds of it."""
    longest = round(max_s * SAMPLE_RATE)
    parts: list[Samples] = []
    pieces: list[tuple[int, int]] = []
    size = 0
    for chunk in chunks:
        if chunk.end <= position or size == longest:
            continue
        begin = max(chunk.start, position)
        part = chunk.samples[begin - chunk.start :][: longest - size]
        parts.append(part)
        pieces.append((size, begin))
        size += part.size
    return SpeechWindow(parts[0] if len(parts) == 1 else np.concatenate(parts), tuple(pieces))


def sound_s(chunks: Sequence[Chunk], position: int) -> float:
    """Seconds of speech from sample `position` on."""
    return sum(max(chunk.end - max(chunk.start, position), 0) for chunk in chunks) / SAMPLE_RATE
