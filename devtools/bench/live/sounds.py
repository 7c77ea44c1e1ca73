"""What the paced clients say: the demo's long recording from anywhere, with its words and their true times."""

from __future__ import annotations

import functools
import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from backend.audio.waveform import SAMPLE_RATE
from devtools.eval.hypotheses import Word
from devtools.eval.manifest import DEMO_SET, Entry, read

_PAUSE_S = 0.8  # between words: from here on every detector hears the end of an utterance of 0.6 s
_FAINT = 1e-3


class Speech(NamedTuple):
    """(n,) float32 at 16 kHz, and its words with their times in it."""

    samples: NDArray[np.float32]
    words: tuple[Word, ...]
    language: str = "en"

    @property
    def utterances(self) -> list[tuple[int, int]]:
        """The numbers of the first and last word of each stretch without a pause."""
        pairs = list(itertools.pairwise(self.words))
        breaks = [i for i, (a, b) in enumerate(pairs, 1) if b.start_s - a.end_s >= _PAUSE_S]
        return [(first, after - 1) for first, after in itertools.pairwise([0, *breaks, len(self.words)])]

    @property
    def spoken_s(self) -> float:
        """Of the words."""
        return sum(word.end_s - word.start_s for word in self.words)


@functools.cache
def _source() -> tuple[Entry, NDArray[np.float32]]:
    entry = next(entry for entry in read(DEMO_SET) if entry.id == "long")
    return entry, entry.samples()


def speech(seconds: float, from_s: float = 0.0) -> Speech:
    """So much of the recording, which begins again at its end; words that are cut in two are left out."""
    entry, samples = _source()
    first, size = round(from_s * SAMPLE_RATE), round(seconds * SAMPLE_RATE)
    sound = np.resize(np.roll(samples, -first), size)
    length_s = samples.size / SAMPLE_RATE
    words = [
        Word(word.text, word.start_s + turn * length_s - from_s, word.end_s + turn * length_s - from_s)
        for turn in range(int((from_s + seconds) // length_s) + 1)
        for word in entry.words
    ]
    return Speech(sound, tuple(word for word in words if word.start_s >= 0 and word.end_s <= seconds), entry.language)


def ends_in_a_word(number: int, least_s: float = 3.0) -> NDArray[np.float32]:
    """Speech that is cut in the middle of a word, another one for each `number`."""
    whole = speech(12.0, 7.0 * number)
    word = next(word for word in whole.words if word.start_s >= least_s)
    return whole.samples[: round((word.start_s + word.end_s) / 2 * SAMPLE_RATE)]


def ends_in_a_pause(number: int, pause_s: float = 1.5) -> NDArray[np.float32]:
    """An utterance, and silence after it, another one for each `number`."""
    whole = speech(20.0, 7.0 * number)
    _, last = next((first, last) for first, last in whole.utterances if whole.words[last].end_s >= 2.0)
    end = round((whole.words[last].end_s + 0.1) * SAMPLE_RATE)
    return np.concatenate([whole.samples[:end], silence(pause_s)])


def repeated(samples: NDArray[np.float32], seconds: float) -> NDArray[np.float32]:
    return np.resize(samples, round(seconds * SAMPLE_RATE))


def silence(seconds: float) -> NDArray[np.float32]:
    """Faint noise."""
    noise = np.random.default_rng(0).standard_normal(round(seconds * SAMPLE_RATE))
    return np.asarray(_FAINT * noise, np.float32)
