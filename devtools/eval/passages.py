"""What the aligners are given: recordings with their true text, whole or cut between sentences, clean or in noise."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from devtools.eval.answers import Word
from devtools.eval.manifest import Entry

SAMPLE_RATE = 16_000
PIECE_S = 15.0
_SENTENCE_ENDS = frozenset(".!?…。！？")


class TextMismatch(Exception):
    """The words of an entry are not the words of its text."""

    def __init__(self, entry_id: str, word: str) -> None:
        super().__init__(
            f'MANIFEST: {entry_id}: the word "{word}" of "words" does not follow in "text"; write both alike'
        )


@dataclass(frozen=True)
class Stretch:
    """A part of a recording: where it begins in it, its samples ((n,) float32, 16 kHz), its text."""

    start_s: float
    samples: NDArray[np.float32]
    text: str


def whole(entry: Entry, samples: NDArray[np.float32]) -> list[Stretch]:
    return [Stretch(0.0, samples, entry.text)]


def pieces(entry: Entry, samples: NDArray[np.float32], longest_s: float = PIECE_S) -> list[Stretch]:
    """The recording cut in the middle of pauses between sentences, as many sentences to a piece as fit.

    A sentence that is longer by itself is a piece by itself. Raises TextMismatch.
    """
    begins = text_begins(entry)
    breaks = [0, *(i + 1 for i in _sentence_ends(entry, begins)), len(entry.words)]
    firsts = [0]  # the first word of each piece
    for sentence, following in pairwise(breaks[1:]):
        if entry.words[following - 1].end_s - entry.words[firsts[-1]].start_s > longest_s:
            firsts.append(sentence)
    cuts_s = [0.0, *((entry.words[i - 1].end_s + entry.words[i].start_s) / 2 for i in firsts[1:])]
    edges = [round(cut * SAMPLE_RATE) for cut in cuts_s] + [samples.size]
    ends = [0, *(begins[i] for i in firsts[1:]), len(entry.text)]
    return [
        Stretch(edges[i] / SAMPLE_RATE, samples[edges[i] : edges[i + 1]], entry.text[ends[i] : ends[i + 1]].strip())
        for i in range(len(firsts))
    ]


def text_begins(entry: Entry) -> list[int]:
    """Where each word of the truth begins in the text. Raises TextMismatch."""
    begins: list[int] = []
    cursor = 0
    for word in entry.words:
        begin = entry.text.find(word.text, cursor)
        if begin < 0:
            raise TextMismatch(entry.id, word.text)
        begins.append(begin)
        cursor = begin + len(word.text)
    return begins


def _sentence_ends(entry: Entry, begins: Sequence[int]) -> Iterator[int]:
    """The words, but the last, behind which a sentence ends."""
    for i, (begin, following) in enumerate(pairwise(begins)):
        if _SENTENCE_ENDS & set(entry.text[begin + len(entry.words[i].text) : following]):
            yield i


def in_noise(entry: Entry, samples: NDArray[np.float32], snr_db: float) -> NDArray[np.float32]:
    """The recording with white noise, so many dB below the power of its words; the same noise for everybody."""
    rng = np.random.default_rng(zlib.crc32(entry.id.encode()))
    spoken = np.concatenate([_spoken(samples, word) for word in entry.words])
    power = float(np.mean(spoken**2)) if spoken.size else 0.0
    noise = rng.standard_normal(samples.size) * np.sqrt(power / 10 ** (snr_db / 10))
    noisy: NDArray[np.float32] = (samples + noise).astype(np.float32)
    return noisy


def _spoken(samples: NDArray[np.float32], word: Word) -> NDArray[np.float32]:
    return samples[round(word.start_s * SAMPLE_RATE) : round(word.end_s * SAMPLE_RATE)]
