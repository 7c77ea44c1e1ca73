"""Input of the aligners: recordings with their reference text, whole or cut between sentences, clean or in noise."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from devtools.eval.manifest import Entry

SAMPLE_RATE = 16_000
PIECE_S = 15.0
SENTENCE_ENDS = frozenset(".!?…。！？")


class TextMismatch(Exception):
    """The words of an entry are not the words of its text."""

    def __init__(self, entry_id: str, word: str) -> None:
        problem = f'the word "{word}" of "words" does not follow in "text"; write both alike'
        super().__init__(f"MANIFEST: {entry_id}: {problem}")


@dataclass(frozen=True)
class Piece:
    """A part of a recording: where it begins, its samples ((n,) float32, 16 kHz), its text."""

    start_s: float
    samples: NDArray[np.float32]
    text: str


def whole(entry: Entry, samples: NDArray[np.float32]) -> list[Piece]:
    return [Piece(0.0, samples, entry.text)]


def pieces(entry: Entry, samples: NDArray[np.float32], longest_s: float = PIECE_S) -> list[Piece]:
    """The recording cut in the middle of pauses between sentences, as many sentences to a piece as fit.

    A sentence that is longer is a piece by itself. Raises TextMismatch.
    """
    begins, ends = word_offsets(entry)
    breaks = [i for i in range(1, len(begins)) if SENTENCE_ENDS & set(entry.text[ends[i - 1] : begins[i]])]
    firsts = [0]  # the first word of each piece
    for sentence, following in pairwise([*breaks, len(entry.words)]):
        if entry.words[following - 1].end_s - entry.words[firsts[-1]].start_s > longest_s:
            firsts.append(sentence)
    cuts_s = [(entry.words[i - 1].end_s + entry.words[i].start_s) / 2 for i in firsts[1:]]
    edges = [0, *(round(cut * SAMPLE_RATE) for cut in cuts_s), samples.size]
    offsets = [0, *(begins[i] for i in firsts[1:]), len(entry.text)]
    return [
        Piece(start / SAMPLE_RATE, samples[start:end], entry.text[first:last].strip())
        for (start, end), (first, last) in zip(pairwise(edges), pairwise(offsets), strict=True)
    ]


def word_offsets(entry: Entry) -> tuple[list[int], list[int]]:
    """Where the words of the reference begin and end in its text. Raises TextMismatch."""
    begins, ends = [], [0]
    for word in entry.words:
        begins.append(entry.text.find(word.text, ends[-1]))
        if begins[-1] < 0:
            raise TextMismatch(entry.id, word.text)
        ends.append(begins[-1] + len(word.text))
    return begins, ends[1:]


def in_noise(entry: Entry, samples: NDArray[np.float32], snr_db: float) -> NDArray[np.float32]:
    """The recording with white noise, `snr_db` below the power of its words; the same noise each time. inf: none."""
    spoken = [samples[round(w.start_s * SAMPLE_RATE) : round(w.end_s * SAMPLE_RATE)] for w in entry.words]
    power = float(np.mean(np.concatenate(spoken) ** 2)) if any(part.size for part in spoken) else 0.0
    noise = np.random.default_rng(zlib.crc32(entry.id.encode())).standard_normal(samples.size)
    return np.asarray(samples + noise * np.sqrt(power / 10 ** (snr_db / 10)), np.float32)
