"""When the words of a reference were shown, of texts that arrive piece by piece or again and again.

The lag of a word is the time of the first piece that holds all of its letters, less the word's true end. Words that
were not recognised have none. Closing marks do not count: a word is read before its full stop is there.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from devtools.eval.hypotheses import Word
from devtools.eval.normalization import UNSPACED, key
from devtools.eval.scoring import matches

_WORD = re.compile(r"\S+")


class Arrival(NamedTuple):
    """The number of a word of the reference, and when it was shown."""

    number: int
    word: Word
    at_s: float

    @property
    def lag_s(self) -> float:
        return self.at_s - self.word.end_s


def of_deltas(deltas: Sequence[tuple[float, str]], reference: Sequence[Word], language: str) -> list[Arrival]:
    """Of pieces of one text that is never changed, (second, piece), in order. The words that match, in order."""
    ends = list(accumulate(len(piece) for _, piece in deltas))
    found = list(_written("".join(piece for _, piece in deltas), language))
    pairs = matches(_split(reference, language), [Word(text, 0, 0) for text, _ in found])
    numbers = _numbers(reference, language)
    last: dict[int, Arrival] = {}  # a word of several characters is there with its last one
    for i, j in pairs:
        at_s = deltas[bisect_left(ends, found[j][1])][0]
        last[numbers[i]] = Arrival(numbers[i], reference[numbers[i]], at_s)
    return list(last.values())


def of_texts(texts: Iterable[tuple[float, str]], reference: Sequence[Word], language: str) -> list[Arrival]:
    """Of whole texts, each of which replaces the one before: a word arrives with the first text that holds it."""
    first: dict[int, Arrival] = {}
    for at_s, text in texts:
        for arrival in of_deltas([(at_s, text)], reference, language):
            first.setdefault(arrival.number, arrival)
    return [first[number] for number in sorted(first)]


def rewrites(texts: Iterable[str]) -> int:
    """How often a text contradicts the words of the one before it, case and marks aside; its last word may grow."""
    count, before = 0, ""
    for text in texts:
        now = key(text)
        count += not now.startswith(before)
        before = key(" ".join(text.split()[:-1]))
    return count


def _written(text: str, language: str) -> Iterator[tuple[str, int]]:
    """The words of a text, and where the letters of each end in it."""
    pattern = re.compile(r"\S") if language in UNSPACED else _WORD
    for match in pattern.finditer(text):
        letters = [match.start() + i for i, character in enumerate(match[0]) if key(character)]
        if letters:
            yield match[0], letters[-1] + 1


def _split(reference: Sequence[Word], language: str) -> list[Word]:
    """The words that the hypothesis is compared with: characters where the script has no spaces."""
    if language not in UNSPACED:
        return list(reference)
    return [Word(character, word.start_s, word.end_s) for word in reference for character in word.text]


def _numbers(reference: Sequence[Word], language: str) -> list[int]:
    """Of the words that `_split` gives, the number of the word in the reference."""
    if language not in UNSPACED:
        return list(range(len(reference)))
    return [number for number, word in enumerate(reference) for _ in word.text]
