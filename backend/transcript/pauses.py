"""What the pauses between speech say about the times of words.

Nobody says a word while nobody speaks. Aligned words that reach into a pause are cut back to the speech they belong to;
words without times are spread over speech alone. Spans are (start, end) in seconds, sorted and apart; law 3 holds
before and after.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Protocol, TypeVar

from backend.transcript.timing import MIN_WORD_S, Times

# How far the aligner is believed beyond the detector, which judges 32 ms at a time and misses soft beginnings and
# ends. Pauses of less than twice that are none: the closure of a stop is as long.
TRUST_S = 0.2

_FASTEST_S = 0.04  # for a letter: 25 letters a second are twice as fast as anybody reads aloud

# A long number is said digit by digit, or in groups with pauses between them: its word may have pauses inside. Other
# words have not, and neither has a round number; one that spans a pause was dragged there by the aligner.
_GROUPED_FROM, _DIGIT_S = 5, 0.2


class Timed(Protocol):
    @property
    def begin(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def start_s(self) -> float: ...
    @property
    def end_s(self) -> float: ...


TimedT = TypeVar("TimedT", bound=Timed)


def cut_back(text: str, words: Iterable[TimedT], spoken: Sequence[Times]) -> list[TimedT]:
    """The words of `text` without what of them lies in a pause. One that lies in a pause altogether stays as it is."""
    spans = _widened(spoken)
    starts, ends = [start for start, _ in spans], [end for _, end in spans]
    cut = []
    for word in words:
        touched = spans[bisect_right(ends, word.start_s) : bisect_left(starts, word.end_s)]
        parts = [(max(start, word.start_s), min(end, word.end_s)) for start, end in touched]
        start_s, end_s = _said(text[word.begin : word.end], parts) if parts else (word.start_s, word.end_s)
        if end_s - start_s < MIN_WORD_S or (start_s, end_s) == (word.start_s, word.end_s):
            cut.append(word)
        else:
            cut.append(replace(word, start_s=start_s, end_s=end_s))  # type: ignore[type-var] # a frozen dataclass
    return cut


def _said(word: str, parts: Sequence[Times]) -> Times:
    """Where a word is said that touches these parts of speech: in the longest, or from the first to the last."""
    longest = max(parts, key=_length_s)
    digits = len("".join(filter(str.isdigit, word)).rstrip("0"))
    if digits < _GROUPED_FROM or _length_s(longest) >= digits * _DIGIT_S:
        return longest
    spoken = [part for part in parts if _length_s(part) > TRUST_S] or [longest]
    return spoken[0][0], spoken[-1][1]


def _length_s(part: Times) -> float:
    return part[1] - part[0]


def _widened(spoken: Sequence[Times]) -> list[Times]:
    """The spans with TRUST_S on both sides, those that then touch as one."""
    spans: list[Times] = []
    for start, end in spoken:
        if spans and start - TRUST_S <= spans[-1][1]:
            spans[-1] = spans[-1][0], end + TRUST_S
        else:
            spans.append((start - TRUST_S, end + TRUST_S))
    return spans


def room_for(text: str, spoken: Sequence[Times], whole: Times) -> Sequence[Times]:
    """Where `text` is spread: over the speech in `whole`, or over all of it where the speech has no room for it.

    The detector misses some: then a long text must not be squeezed into the little that it heard.
    """
    return spoken if sum(end - start for start, end in spoken) >= _FASTEST_S * len(text) else [whole]


class SpeechClock:
    """A clock that runs while somebody speaks: from 0 to `total_s`. Spans, at least one, as above."""

    def __init__(self, spoken: Sequence[Times]) -> None:
        self._spans = spoken
        # where on this clock each span begins, and the last one ends
        self._marks = list(accumulate((end - start for start, end in spoken), initial=0.0))

    @property
    def total_s(self) -> float:
        return self._marks[-1]

    def beginning(self, spoken_s: float) -> float:
        """When a word begins that begins at `spoken_s` on this clock: after a pause rather than before it."""
        at = min(bisect_right(self._marks, spoken_s), len(self._spans)) - 1
        return self._real(at, spoken_s)

    def end(self, spoken_s: float) -> float:
        """When a word ends that ends at `spoken_s` on this clock: before a pause rather than after it."""
        at = max(bisect_left(self._marks, spoken_s), 1) - 1
        return self._real(min(at, len(self._spans) - 1), spoken_s)

    def _real(self, at: int, spoken_s: float) -> float:
        start, end = self._spans[at]
        return min(start + spoken_s - self._marks[at], end)
