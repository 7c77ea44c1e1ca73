"""Corrects the times of words by the detected speech: nobody says a word during a pause.

Aligned words that reach into a pause are trimmed to the speech they belong to. Words without times are spread over
speech only. Spans are (start, end) in seconds, sorted and disjoint; law 3 holds before and after.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Protocol, TypeVar

from backend.thresholds import ALIGNER_TOLERANCE_S, DIGIT_S, MIN_GROUPED_DIGITS, MIN_LETTER_S, MIN_WORD_S
from backend.transcript.timing import Times


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


def trim_to_speech(text: str, words: Iterable[TimedT], spoken: Sequence[Times]) -> list[TimedT]:
    """The words of `text`, without the parts that lie in a pause. A word that lies in a pause altogether stays."""
    spans = _widened(spoken)
    starts, ends = [start for start, _ in spans], [end for _, end in spans]
    trimmed = []
    for word in words:
        overlapping = spans[bisect_right(ends, word.start_s) : bisect_left(starts, word.end_s)]
        parts = [(max(start, word.start_s), min(end, word.end_s)) for start, end in overlapping]
        start_s, end_s = _times_in(parts, text[word.begin : word.end]) if parts else (word.start_s, word.end_s)
        if end_s - start_s < MIN_WORD_S or (start_s, end_s) == (word.start_s, word.end_s):
            trimmed.append(word)
        else:
            trimmed.append(replace(word, start_s=start_s, end_s=end_s))  # type: ignore[type-var] # a frozen dataclass
    return trimmed


def _times_in(parts: Sequence[Times], word: str) -> Times:
    """The times of a word that overlaps these parts of speech: the longest part, or all of them for a long number.

    A long number is spoken digit by digit, or in groups with pauses between them. Other words, and round numbers, have
    no pauses inside: one that spans a pause was dragged across it by the aligner.
    """
    longest = max(parts, key=_length_s)
    digits = len("".join(filter(str.isdigit, word)).rstrip("0"))
    if digits < MIN_GROUPED_DIGITS or _length_s(longest) >= digits * DIGIT_S:
        return longest
    groups = [part for part in parts if _length_s(part) > ALIGNER_TOLERANCE_S] or [longest]
    return groups[0][0], groups[-1][1]


def _length_s(part: Times) -> float:
    return part[1] - part[0]


def _widened(spoken: Sequence[Times]) -> list[Times]:
    """The spans with ALIGNER_TOLERANCE_S on both sides, merged where they then touch."""
    spans: list[Times] = []
    for start, end in spoken:
        if spans and start - ALIGNER_TOLERANCE_S <= spans[-1][1]:
            spans[-1] = spans[-1][0], end + ALIGNER_TOLERANCE_S
        else:
            spans.append((start - ALIGNER_TOLERANCE_S, end + ALIGNER_TOLERANCE_S))
    return spans


def spans_for(text: str, spoken: Sequence[Times], whole: Times) -> Sequence[Times]:
    """The spans to spread `text` over: the speech `spoken` in `whole`, or all of `whole` if that is too short for it.

    The detector misses some speech, and a long text must not be squeezed into the little that was detected.
    """
    return spoken if sum(end - start for start, end in spoken) >= MIN_LETTER_S * len(text) else [whole]


class SpeechClock:
    """A clock that runs only during speech, from 0 to `total_s`. Takes at least one span, as above."""

    def __init__(self, spoken: Sequence[Times]) -> None:
        self._spans = spoken
        # where on this clock each span begins, and the last one ends
        self._marks = list(accumulate((end - start for start, end in spoken), initial=0.0))

    @property
    def total_s(self) -> float:
        return self._marks[-1]

    def word_start_s(self, clock_s: float) -> float:
        """The real time of a word's start at `clock_s` on this clock: at a pause, after it."""
        at = min(bisect_right(self._marks, clock_s), len(self._spans)) - 1
        return self._real_s(at, clock_s)

    def word_end_s(self, clock_s: float) -> float:
        """The real time of a word's end at `clock_s` on this clock: at a pause, before it."""
        at = max(bisect_left(self._marks, clock_s), 1) - 1
        return self._real_s(min(at, len(self._spans) - 1), clock_s)

    def _real_s(self, at: int, clock_s: float) -> float:
        start, end = self._spans[at]
        return min(start + clock_s - self._marks[at], end)
