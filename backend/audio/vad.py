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
from backend.audio.levels import frame_power, gain
from backend.audio.waveform import SAMPLE_RATE, Samples
from backend.options.load_options import LoadOptions
from backend.thresholds import LIKELIHOOD_HYSTERESIS, WARM_UP_S

_FRAME = silero.FRAME
_PIECE_FRAMES = 60 * SAMPLE_RATE // _FRAME
_WARM_UP_FRAMES = int(WARM_UP_S * SAMPLE_RATE) // _FRAME
_TURN_FRAMES = silero.MAX_PIECES * _PIECE_FRAMES  # what one thread judges at a time
_MAX_PARALLEL = min(8, os.cpu_count() or 1)


@dataclass(frozen=True)
class SpeechRules:
    """`threshold`: likelihood from which a frame is speech, 0 to 1. Shorter speech and shorter silence do not count."""

    threshold: float
    min_speech_s: float
    min_silence_s: float

    @staticmethod
    def of(load: LoadOptions) -> SpeechRules:
        """Those of the operator's options."""
        return SpeechRules(load.vad_threshold, load.vad_min_speech_s, load.vad_min_silence_s)


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
    filtered, gains = await loop.run_in_executor(_long_executor, _filtered_and_gain, samples)
    found: list[NDArray[np.float32]] = []
    for first in range(0, gains.size, _TURN_FRAMES * _MAX_PARALLEL):
        turns = range(first, min(first + _TURN_FRAMES * _MAX_PARALLEL, gains.size), _TURN_FRAMES)
        found += await asyncio.gather(
            *(loop.run_in_executor(_long_executor, _likelihoods, filtered, gains, turn) for turn in turns)
        )
    return await loop.run_in_executor(_long_executor, speech_of, np.concatenate(found), rules, samples.size)


def _detect_one_piece(samples: Samples, rules: SpeechRules) -> Speech:
    """All steps in one thread: for a short recording, changing threads takes longer than some of the steps."""
    return speech_of(_likelihoods(*_filtered_and_gain(samples), 0), rules, samples.size)


def speech_of(likelihood: NDArray[np.float32], rules: SpeechRules, size: int) -> Speech:
    """The speech in `size` samples whose frames have these likelihoods, (frames,)."""
    return Speech(tuple(_spans(likelihood, rules, size)), likelihood)


def _filtered_and_gain(samples: Samples) -> tuple[Samples, NDArray[np.float32]]:
    """The samples without hum and rumble, and the gain of each frame, shape (frames,)."""
    filtered = high_passed(samples)
    return filtered, gain(frame_power(filtered))


def _likelihoods(samples: Samples, gains: NDArray[np.float32], first: int) -> NDArray[np.float32]:
    """The speech likelihood, 0 to 1, of the frames from `first` on: of _TURN_FRAMES, or of as many as are left."""
    end = min(first + _TURN_FRAMES, gains.size)
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
        frames[: stop - begin] *= gains[begin:stop, None]
    found = silero.likelihoods(np.clip(levelled, -1, 1, out=levelled))
    return np.concatenate(
        [of_piece[start - begin : stop - begin] for (begin, start, stop), of_piece in zip(pieces, found, strict=True)]
    )


_long_executor = ThreadPoolExecutor(_MAX_PARALLEL, "speech")
_short_executor = ThreadPoolExecutor(_MAX_PARALLEL, "speech-short")  # a command never queues behind minutes of audio


def _spans(likelihood: NDArray[np.float32], rules: SpeechRules, size: int) -> Iterator[tuple[int, int]]:
    """Spans in samples, each from its first frame over the threshold to its last frame before a silence."""
    over = np.flatnonzero(likelihood >= rules.threshold)
    on = np.flatnonzero(likelihood >= on_threshold(rules))
    if not over.size:
        return
    breaks = np.flatnonzero(np.diff(on) - 1 >= silence_frames(rules))
    for group in np.split(on, breaks + 1):
        first = int(np.searchsorted(over, group[0]))
        last = int(np.searchsorted(over, group[-1], side="right"))
        if last - first >= min_speech_frames(rules):
            yield int(over[first]) * _FRAME, min((int(group[-1]) + 1) * _FRAME, size)


def on_threshold(rules: SpeechRules) -> float:
    """The likelihood from which a frame goes on with speech."""
    return max(rules.threshold - LIKELIHOOD_HYSTERESIS, 0.01)


def min_speech_frames(rules: SpeechRules) -> int:
    """Frames over the threshold that speech has at least."""
    return max(1, round(rules.min_speech_s * SAMPLE_RATE / _FRAME))


def silence_frames(rules: SpeechRules) -> float:
    """Frames between two that go on with speech, from which two spans are apart."""
    return max(rules.min_silence_s * SAMPLE_RATE / _FRAME, 1)
