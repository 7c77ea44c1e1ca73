"""Digital silence around and between words, as files have it: lead-ins, gated pauses, fills for lost packets.

The recordings of speech.py hold noise, or pauses of less than a second. A recogniser that was trained on those alone
invents words in one second of zeros. As in speech.py all randomness comes from the caller's generator.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from devtools.demo_models.speech import SAMPLE_RATE, Recording, Samples, noise

MARGIN_S = 2.0  # of silence in one place, mostly at most
_LAST_BIT = 2.0**-15  # of a 16-bit file, from -1 to 1
_TAIL_S = 0.03  # of sound that a gate leaves behind a word


@dataclass(frozen=True)
class Silences:
    """The share of a training's recordings that are put in silence, and of its silences that take all room there is."""

    share: float
    long: float


def floor(rng: np.random.Generator, kind: int, size: int) -> Samples:
    """`size` samples of zeros (kind 0), of 16-bit dither (1), or of noise 60 to 95 dB below full scale (2)."""
    if kind == 0:
        return np.zeros(size, np.float32)
    if kind == 1:
        return np.asarray(np.rint(rng.random(size) + rng.random(size) - 1) * _LAST_BIT, np.float32)
    return np.asarray(noise(rng, size) * 10 ** rng.uniform(-4.75, -3), np.float32)


def in_silence(rng: np.random.Generator, recording: Recording, seconds: float, *, long: float = 0.5) -> Recording:
    """The recording with silence before it, behind it and in its pauses, `seconds` long at most.

    `long`: the share of silences that may take all the room there is.
    """
    kind = int(rng.choice(3, p=(0.6, 0.2, 0.2)))
    if rng.random() < 0.4:
        recording = gated(rng, recording, kind)
    ends = [0, recording.samples.size]
    pauses = [
        round((before[-1].end_s + behind[0].start_s) / 2 * SAMPLE_RATE)
        for before, behind in itertools.pairwise(recording.sentences)
        if rng.random() < 0.3
    ]
    room = max(0, round(seconds * SAMPLE_RATE) - recording.samples.size)
    silences: list[tuple[int, Samples]] = []
    for place in rng.permutation([*ends, *pauses]):
        longest = room if rng.random() < long else min(room, round(MARGIN_S * SAMPLE_RATE))
        size = int(rng.integers(longest + 1)) if rng.random() < 0.8 else 0
        silences.append((int(place), floor(rng, kind, size)))
        room -= size
    return inserted(recording, silences)


def gated(rng: np.random.Generator, recording: Recording, kind: int) -> Recording:
    """The recording with a floor instead of what lies between its words, before and behind them."""
    samples = recording.samples.copy()
    tail = round(_TAIL_S * SAMPLE_RATE)
    edges = [round(at * SAMPLE_RATE) for word in recording.spoken for at in (word.start_s, word.end_s)]
    begins, ends = [0, *(end + tail for end in edges[1::2])], [*edges[::2], samples.size]
    for begin, end in zip(begins, ends, strict=True):
        if begin < end:
            samples[begin:end] = floor(rng, kind, end - begin)
    return replace(recording, samples=samples)


def inserted(recording: Recording, silences: Iterable[tuple[int, Samples]]) -> Recording:
    """The recording with each of `silences` before one of its samples, and its words where they then are."""
    ordered = sorted(silences, key=lambda silence: silence[0])
    pieces: list[Samples] = []
    reached = 0
    for at, silence in ordered:
        pieces += [recording.samples[reached:at], silence]
        reached = at
    pieces.append(recording.samples[reached:])

    def moved(at_s: float) -> float:
        return at_s + sum(silence.size for at, silence in ordered if at <= at_s * SAMPLE_RATE) / SAMPLE_RATE

    sentences = [
        [word._replace(start_s=moved(word.start_s), end_s=moved(word.end_s)) for word in sentence]
        for sentence in recording.sentences
    ]
    return Recording(np.concatenate(pieces), recording.language, sentences)
