"""Voice activity detection: Silero's detector, for recordings of any level and any length.

- Loudness is not speech. The recording is levelled first, so the detector finds a whisper far from the microphone and
  rejects loud music. A level counts only if it is sustained: a click, or a DC offset, must not hide quiet speech.
- Spans are in samples, sorted and disjoint, without margins. Callers that need a margin add it.
- Pieces of a minute are judged independently, a few by one thread. One recording occupies at most _MAX_PARALLEL threads
  at a time, so recordings take turns. Short recordings (one piece) have threads of their own.
"""

from __future__ import annotations

import asyncio
import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from backend.audio import silero
from backend.audio.high_pass import high_passed
from backend.audio.waveform import SAMPLE_RATE, Samples
from backend.thresholds import (
    LEVEL_CONTEXT_S,
    LEVEL_EDGE_S,
    LEVEL_SIDE_S,
    LIKELIHOOD_HYSTERESIS,
    MAX_GAIN,
    SUSTAINED_FRAMES,
    TARGET_RMS,
    VOICE_RANGE_DB,
    WARM_UP_S,
)

_FRAME = silero.FRAME
_PIECE_FRAMES = 60 * SAMPLE_RATE // _FRAME
_WARM_UP_FRAMES = int(WARM_UP_S * SAMPLE_RATE) // _FRAME
_CONTEXT_FRAMES = int(LEVEL_CONTEXT_S * SAMPLE_RATE) // _FRAME
_SIDE_FRAMES = int(LEVEL_SIDE_S * SAMPLE_RATE) // _FRAME
_EDGE_FRAMES = int(LEVEL_EDGE_S * SAMPLE_RATE) // _FRAME
_VOICE_RANGE = 10 ** (VOICE_RANGE_DB / 10)
_TURN_FRAMES = silero.MAX_PIECES * _PIECE_FRAMES  # what one thread judges at a time
_MAX_PARALLEL = min(8, os.cpu_count() or 1)


@dataclass(frozen=True)
class SpeechRules:
    """`threshold`: likelihood from which a frame is speech, 0 to 1. Shorter speech and shorter silence do not count."""

    threshold: float
    min_speech_s: float
    min_silence_s: float


@dataclass(frozen=True)
class Speech:
    """The detected speech. `spans`: [begin, end) in samples; `likelihood`: (frames,) of 512 samples each, 0 to 1.

    `measured` is False where no detector ran (see `all_speech`): then the whole recording counts as speech.
    """

    spans: tuple[tuple[int, int], ...]
    likelihood: NDArray[np.float32]
    measured: bool = True

    @cached_property
    def _ends(self) -> list[int]:
        return [end for _, end in self.spans]

    def within(self, begin: int, end: int) -> list[tuple[int, int]]:
        """The parts of the spans that lie in [begin, end)."""
        first = bisect_right(self._ends, begin)
        last = bisect_left(self.spans, (end, end))
        return [(max(start, begin), min(stop, end)) for start, stop in self.spans[first:last] if begin < end]

    def within_s(self, begin: int, end: int) -> list[tuple[float, float]]:
        """The same parts, in seconds of the recording."""
        return [(start / SAMPLE_RATE, stop / SAMPLE_RATE) for start, stop in self.within(begin, end)]

    def seconds(self, begin: int, end: int) -> float:
        """Seconds of speech between two samples."""
        return sum(stop - start for start, stop in self.within(begin, end)) / SAMPLE_RATE

    def mean_likelihood(self, begin: int, end: int) -> float:
        """The mean likelihood of the speech between two samples; 0 where there is no speech."""
        frames = [self.likelihood[a // _FRAME : -(-b // _FRAME)] for a, b in self.within(begin, end)]
        return float(np.concatenate(frames).mean()) if frames else 0.0


def all_speech(samples: Samples) -> Speech:
    """The whole recording as one span of speech, for a recording on which no detector runs."""
    spans = ((0, samples.size),) if samples.size else ()
    return Speech(spans, np.ones(-(-samples.size // _FRAME), np.float32), measured=False)


async def detect(samples: Samples, rules: SpeechRules) -> Speech:
    """The speech in a recording, shape (n,). After a cancellation no further turn is started."""
    loop = asyncio.get_running_loop()
    if samples.size <= _PIECE_FRAMES * _FRAME:
        return await loop.run_in_executor(_short_executor, _detect_one_piece, samples, rules)
    filtered, gain = await loop.run_in_executor(_long_executor, _filtered_and_gain, samples)
    found: list[NDArray[np.float32]] = []
    for first in range(0, gain.size, _TURN_FRAMES * _MAX_PARALLEL):
        turns = range(first, min(first + _TURN_FRAMES * _MAX_PARALLEL, gain.size), _TURN_FRAMES)
        found += await asyncio.gather(
            *(loop.run_in_executor(_long_executor, _likelihoods, filtered, gain, turn) for turn in turns)
        )
    return await loop.run_in_executor(_long_executor, _to_speech, np.concatenate(found), rules, samples.size)


def _detect_one_piece(samples: Samples, rules: SpeechRules) -> Speech:
    """All steps in one thread: for a short recording, changing threads takes longer than some of the steps."""
    return _to_speech(_likelihoods(*_filtered_and_gain(samples), 0), rules, samples.size)


def _to_speech(likelihood: NDArray[np.float32], rules: SpeechRules, size: int) -> Speech:
    return Speech(tuple(_spans(likelihood, rules, size)), likelihood)


def _filtered_and_gain(samples: Samples) -> tuple[Samples, NDArray[np.float32]]:
    """The samples without hum and rumble, and the gain of each frame, shape (frames,)."""
    filtered = high_passed(samples)
    return filtered, _gain(filtered)


def _gain(samples: Samples) -> NDArray[np.float32]:
    """Amplification of each frame, 1 to MAX_GAIN, shape (frames,), that brings the loudest sustained sound nearby to
    TARGET_RMS. Loud sound is not turned down.

    Nearby is LEVEL_CONTEXT_S on both sides. But where the sound just before the frame, or just behind it, rises and
    falls as a voice does, its own level counts: so a loud sound does not silence a quiet voice beside it.
    """
    whole = samples.size // _FRAME
    frames = samples[: whole * _FRAME].reshape(whole, _FRAME)
    power = np.einsum("ij,ij->i", frames, frames) / _FRAME  # einsum: no copy of squares
    if rest := samples.size - whole * _FRAME:
        power = np.append(power, np.square(samples[-rest:]).sum() / _FRAME)
    if not power.size:
        return np.zeros(0, np.float32)
    sustained = -_loudest(-power, SUSTAINED_FRAMES // 2, SUSTAINED_FRAMES // 2)
    nearby = _loudest(sustained, _CONTEXT_FRAMES, _CONTEXT_FRAMES)
    sides = []
    for reach in ((_SIDE_FRAMES, 0), (0, _SIDE_FRAMES)):
        loudest, quietest = _loudest(sustained, *reach), -_loudest(-power, *reach)
        sides.append(np.where(loudest > _VOICE_RANGE * quietest, loudest, nearby))
    level = np.maximum(np.minimum(*sides), _loudest(sustained, _EDGE_FRAMES, _EDGE_FRAMES))
    gain: NDArray[np.float32] = np.clip(TARGET_RMS / np.sqrt(np.maximum(level, 1e-24)), 1.0, MAX_GAIN)
    return gain.astype(np.float32)


def _loudest(values: NDArray[np.float32], before: int, after: int) -> NDArray[np.float32]:
    """The largest of each value and so many before and after it, shape (n,)."""
    padded = np.pad(values, (before, after), mode="edge")
    largest: NDArray[np.float32] = np.lib.stride_tricks.sliding_window_view(padded, before + after + 1).max(axis=1)
    return largest


def _likelihoods(samples: Samples, gain: NDArray[np.float32], first: int) -> NDArray[np.float32]:
    """The speech likelihood, 0 to 1, of the frames from `first` on: of _TURN_FRAMES, or of as many as are left."""
    end = min(first + _TURN_FRAMES, gain.size)
    pieces = [  # frame numbers: where its warm-up begins, where it begins itself, where it ends
        (max(start - _WARM_UP_FRAMES, 0), start, min(start + _PIECE_FRAMES, end))
        for start in range(first, end, _PIECE_FRAMES)
    ]
    if not pieces:
        return np.zeros(0, np.float32)
    origin = pieces[0][0]
    sound = samples[origin * _FRAME : end * _FRAME]
    longest = max(stop - begin for begin, _, stop in pieces)
    levelled = np.zeros((len(pieces), longest, _FRAME), np.float32)  # shorter pieces are padded with silence
    for (begin, _, stop), frames in zip(pieces, levelled, strict=True):
        part = sound[(begin - origin) * _FRAME : (stop - origin) * _FRAME]
        frames.reshape(-1)[: part.size] = part
        frames[: stop - begin] *= gain[begin:stop, None]
    found = silero.likelihoods(np.clip(levelled, -1, 1, out=levelled))
    return np.concatenate(
        [of_piece[start - begin : stop - begin] for (begin, start, stop), of_piece in zip(pieces, found, strict=True)]
    )


_long_executor = ThreadPoolExecutor(_MAX_PARALLEL, "speech")
_short_executor = ThreadPoolExecutor(_MAX_PARALLEL, "speech-short")  # a command never queues behind minutes of audio


def _spans(likelihood: NDArray[np.float32], rules: SpeechRules, size: int) -> Iterator[tuple[int, int]]:
    """Spans in samples, each from its first frame over the threshold to its last frame before a silence."""
    over = np.flatnonzero(likelihood >= rules.threshold)
    on = np.flatnonzero(likelihood >= max(rules.threshold - LIKELIHOOD_HYSTERESIS, 0.01))
    if not over.size:
        return
    min_frames = max(1, round(rules.min_speech_s * SAMPLE_RATE / _FRAME))
    silence = rules.min_silence_s * SAMPLE_RATE / _FRAME
    breaks = np.flatnonzero(np.diff(on) - 1 >= max(silence, 1))
    for group in np.split(on, breaks + 1):
        first = int(np.searchsorted(over, group[0]))
        last = int(np.searchsorted(over, group[-1], side="right"))
        if last - first >= min_frames:
            yield int(over[first]) * _FRAME, min((int(group[-1]) + 1) * _FRAME, size)
