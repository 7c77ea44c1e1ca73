"""Recordings with a known text: demo voices with music between them, and texts that differ from what is said.

Each case is the three-minute recording of the demo set, or its Chinese ones, cut at sentences: a line is a sentence.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from devtools.eval.manifest import Entry

SAMPLE_RATE = 16_000
MUSIC_LEVEL = 0.12
GAPS_S = (5.0, 60.0, 20.0, 10.0, 40.0)  # of music, one behind another
_SENTENCE_ENDS = frozenset(".!?…。！？")
_TONIC_HZ, _CHORD, _PROGRESSION = 220.0, (0, 4, 7), (0, 5, 7, 3)  # semitones


@dataclass(frozen=True)
class Line:
    """A line of a text; `start_s`: where it is said, NaN if it is not."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Case:
    """A recording and a text. The lines that are said in another order, or not at all, have no start."""

    name: str
    samples: NDArray[np.float32]
    lines: tuple[Line, ...]
    language: str


def lines_of(text: str, words: Iterable[tuple[str, float, float]]) -> list[Line]:
    """The sentences of a text as lines; `words`: its words with their times, in seconds."""
    lines: list[Line] = []
    begin = at = 0
    start_s: float | None = None
    for word, word_start_s, word_end_s in words:
        at = text.index(word, at) + len(word)
        start_s = word_start_s if start_s is None else start_s
        if at == len(text) or text[at] in _SENTENCE_ENDS:
            at = min(at + 1, len(text))
            lines.append(Line(text[begin:at].strip(), start_s, word_end_s))
            begin, start_s = at, None
    return lines


def music(seconds: float, seed: int = 1) -> NDArray[np.float32]:
    """Chords and a drum, two beats a second."""
    size, beat = round(seconds * SAMPLE_RATE), SAMPLE_RATE // 2
    sound = np.zeros(size)
    chance = np.random.default_rng(seed)
    for number, begin in enumerate(range(0, size, beat)):
        time_s = np.arange(min(beat, size - begin)) / SAMPLE_RATE
        root = _PROGRESSION[number // 8 % len(_PROGRESSION)]
        tones = [2 * np.pi * _TONIC_HZ * 2 ** ((root + step) / 12) * time_s for step in _CHORD]
        chord = sum(np.sin(tone) + 0.5 * np.sin(2 * tone) for tone in tones)
        drum = chance.standard_normal(time_s.size) * np.exp(-40 * time_s)
        sound[begin : begin + time_s.size] = MUSIC_LEVEL * (chord * np.exp(-4 * time_s) + drum)
    return sound.astype(np.float32)


def cases(english: Entry, chinese: Sequence[Entry]) -> list[Case]:
    """All cases; `english`: a recording of minutes with sentences, `chinese`: short ones."""
    samples, lines = english.samples(), _lines(english)
    wrong = Line("Green morning five please eight hello nine.", np.nan, np.nan)
    strange = Line("Open the seven doors red hello fox.", np.nan, np.nan)
    middle = len(lines) // 2
    unsaid = [strange, Line(wrong.text, np.nan, np.nan)]
    exchanged = [Line(lines[at].text, np.nan, np.nan) for at in (13, 12)]  # either may be found
    swapped = [*lines[:12], *exchanged, *lines[14:]]
    chorus = _verses(samples, lines, [(0, 8), (8, 12), (12, 20), (8, 12), (20, 28), (8, 12)], lambda _: 0.5)
    four_times = _verses(samples, lines, [(0, len(lines))] * 4, lambda _: 0.5)
    plan: list[tuple[str, NDArray[np.float32], Sequence[Line]]] = [
        ("the text as it is said", samples, lines),
        ("60 s of music in the middle", *_verses(samples, lines, [(0, middle), (middle, len(lines))], lambda _: 60.0)),
        (
            "music of 5 to 60 s between",
            *_verses(samples, lines, _sixths(len(lines)), lambda n: GAPS_S[n % len(GAPS_S)]),
        ),
        ("two verses missing from the text", samples, [*lines[:10], *lines[18:30], *lines[38:]]),
        ("two lines that are not said", samples, [*lines[:20], *unsaid, *lines[20:]]),
        ("a wrong line", samples, [*lines[:20], wrong, *lines[21:]]),
        ("two lines exchanged", samples, swapped),
        ("a chorus that comes three times", *chorus),
        ("four times as long", *four_times),
    ]
    found = [Case(name, sound, tuple(text), english.language) for name, sound, text in plan]
    spoken = [(entry.samples(), _lines(entry)) for entry in chinese]
    if spoken:
        found.append(Case("Chinese, music between", *_joined(spoken, lambda _: 10.0), chinese[0].language))
    return found


def _lines(entry: Entry) -> list[Line]:
    return lines_of(entry.text, ((word.text, word.start_s, word.end_s) for word in entry.words))


def _sixths(count: int) -> list[tuple[int, int]]:
    return [*itertools.pairwise(round(count * n / 6) for n in range(7))]


def _verses(
    samples: NDArray[np.float32],
    lines: Sequence[Line],
    verses: Sequence[tuple[int, int]],
    gap_s: Callable[[int], float],
) -> tuple[NDArray[np.float32], tuple[Line, ...]]:
    """The lines [first, after) of each verse, with music of `gap_s(number)` seconds behind it, but for the last."""
    cuts = [0.0, *((a.end_s + b.start_s) / 2 for a, b in itertools.pairwise(lines)), samples.size / SAMPLE_RATE]
    parts = []
    for first, after in verses:
        begin_s = cuts[first]
        sound = samples[round(begin_s * SAMPLE_RATE) : round(cuts[after] * SAMPLE_RATE)]
        parts.append((sound, [_later(line, -begin_s) for line in lines[first:after]]))
    return _joined(parts, gap_s)


def _joined(
    parts: Sequence[tuple[NDArray[np.float32], Sequence[Line]]], gap_s: Callable[[int], float]
) -> tuple[NDArray[np.float32], tuple[Line, ...]]:
    sounds: list[NDArray[np.float32]] = []
    lines: list[Line] = []
    size = 0
    for number, (sound, text) in enumerate(parts):
        lines += [_later(line, size / SAMPLE_RATE) for line in text]
        following = music(gap_s(number), seed=number) if number + 1 < len(parts) else sound[:0]
        sounds += [sound, following]
        size += sound.size + following.size
    return np.concatenate(sounds), tuple(lines)


def _later(line: Line, by_s: float) -> Line:
    return Line(line.text, line.start_s + by_s, line.end_s + by_s)
