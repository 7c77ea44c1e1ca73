"""Cuts the words of a recording into captions that can be read: slices of the text, each with the time it is shown.

- The bounds of CaptionRules hold wherever the words' times allow it. Of all cuts the one with the fewest captions out
  of bounds is taken, and of those the one with the best breaks: dynamic programming over the words.
- A caption begins with its first word. It is shown until its last word ends, and longer where that helps to read it
  and there is room before the next one.
- Between two captions are two frames, `gap_s`. Where the speech leaves no room for them, the caption ends that much
  before its last word does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf

from backend.transcript.subtitles.line_breaks import Break, Layout, LineRules, break_before
from backend.transcript.words import Word

_ROUNDING_S = 1e-6
_CAPTION_COST = 6.0  # of each caption: fewer are better. Costs here are in the unit of Break; chosen, not measured
_INNER_SENTENCE_COST = 3.0  # of a sentence that ends inside a caption
_INNER_SILENCE_COST = 8.0  # of a second of silence inside a caption, from a pause on
_PAUSE_S = 0.3  # a gap that can be heard
_LINE_BREAK_SHARE = 0.25  # of a break's cost, where it lies between two lines of one caption
_FAST_COST = 0.5  # of a character a second over the comfortable speed
_COMFORTABLE_SHARE = 0.85  # of the highest reading speed: 17 of 20 characters a second


@dataclass(frozen=True)
class CaptionRules:
    """Bounds of a caption. Source: Netflix' timed text style guide; speeds of its guides for adults."""

    line_chars: int = 42
    wide_line_chars: int = 16
    lines: int = 2
    min_s: float = 0.84  # 5/6 s, in whole frames of 40 ms
    max_s: float = 7.0
    max_chars_per_s: float = 20.0
    gap_s: float = 0.08


@dataclass(frozen=True, slots=True)
class Caption:
    """Words [first, after), shown until `end_s`."""

    first: int
    after: int
    end_s: float


def captions(
    text: str,
    words: Sequence[Word],
    rules: CaptionRules,
    *,
    ends: Collection[int] = (),
    languages: Sequence[str] = (),
    duration_s: float = inf,
) -> list[Caption]:
    """The captions of `text`, in order; every word is in one.

    `ends`: numbers of the words before which a sentence ended. `languages`: the code of each word's language.
    `duration_s`: of the recording; nothing is shown after it.
    """
    if not words:
        return []
    cutter = _Cutter(text, words, rules, set(ends), languages, duration_s)
    return [Caption(first, after, cutter.end_s(first, after)) for first, after in cutter.best()]


def line_rules(rules: CaptionRules) -> LineRules:
    return LineRules(rules.line_chars, rules.wide_line_chars, rules.lines)


class _Cutter:
    def __init__(
        self,
        text: str,
        words: Sequence[Word],
        rules: CaptionRules,
        ends: set[int],
        languages: Sequence[str],
        duration_s: float,
    ) -> None:
        self._words = words
        self._rules = rules
        self._duration_s = duration_s
        gaps = [0.0, *(word.start_s - before.end_s for before, word in pairwise(words))]
        breaks = [
            _break(text, words, at, gaps[at], at in ends, languages[at - 1] if languages else "")
            for at in range(len(words))
        ]
        self._layout = Layout(text, words, breaks, line_rules(rules))
        # Cost of a break that a caption runs over, summed from the first word.
        self._inner = [0.0]
        for at, gap_s in enumerate(gaps):
            silence_s = gap_s if gap_s >= _PAUSE_S else 0.0
            self._inner.append(
                self._inner[-1] + _INNER_SILENCE_COST * silence_s + (_INNER_SENTENCE_COST if at in ends else 0.0)
            )

    def best(self) -> list[tuple[int, int]]:
        """The cut with the fewest violations, then the least cost: word numbers [first, after) of its captions."""
        best: list[tuple[int, float]] = [(0, 0.0)]
        starts = [0]
        for after in range(1, len(self._words) + 1):
            options = (
                ((best[first][0] + violations, best[first][1] + cost), first)
                for first, violations, cost in self._candidates(after)
            )
            score, first = min(options)
            best.append(score)
            starts.append(first)
        cut: list[tuple[int, int]] = []
        after = len(self._words)
        while after:
            cut.append((starts[after], after))
            after = starts[after]
        return cut[::-1]

    def _candidates(self, after: int) -> Iterator[tuple[int, int, float]]:
        """The captions that end with word `after` - 1: their first word, violations of a bound, and cost."""
        for first in range(after - 1, -1, -1):
            spoken_s = self._words[after - 1].end_s - self._words[first].start_s
            wrap_cost = self._layout.wrap_cost(first, after)
            is_too_much = wrap_cost is None or spoken_s > self._rules.max_s + _ROUNDING_S
            if is_too_much and after - first > 1:
                return
            yield first, self._violations(first, after) + is_too_much, self._cost(first, after, wrap_cost or 0)

    def _violations(self, first: int, after: int) -> int:
        end_s = self.end_s(first, after)
        shown_s = end_s - self._words[first].start_s
        return (
            (shown_s < self._rules.min_s - _ROUNDING_S)
            + (self._layout.chars(first, after) > self._rules.max_chars_per_s * (shown_s + _ROUNDING_S))
            + (self._next_start_s(after) - end_s < self._rules.gap_s - _ROUNDING_S)
        )

    def _cost(self, first: int, after: int, wrap_cost: int) -> float:
        shown_s = self.end_s(first, after) - self._words[first].start_s
        speed = self._layout.chars(first, after) / shown_s
        breaks = self._layout.breaks
        return (
            _CAPTION_COST
            + (breaks[after] if after < len(breaks) else Break.SENTENCE)
            + _LINE_BREAK_SHARE * wrap_cost
            + self._inner[after]
            - self._inner[first + 1]
            + _FAST_COST * max(0.0, speed - _COMFORTABLE_SHARE * self._rules.max_chars_per_s)
        )

    def end_s(self, first: int, after: int) -> float:
        """When the caption of these words disappears."""
        last, start_s = self._words[after - 1], self._words[first].start_s
        to_read_s = self._layout.chars(first, after) / (_COMFORTABLE_SHARE * self._rules.max_chars_per_s)
        wanted_s = max(last.end_s, start_s + min(max(self._rules.min_s, to_read_s), self._rules.max_s))
        next_s = self._next_start_s(after)
        limit_s = min(next_s - self._rules.gap_s, self._duration_s)
        earliest_s = last.start_s + (last.end_s - last.start_s) / 2  # its last word has to be seen
        return max(min(wanted_s, limit_s), min(earliest_s, limit_s + self._rules.gap_s))

    def _next_start_s(self, after: int) -> float:
        return self._words[after].start_s if after < len(self._words) else inf


def _break(text: str, words: Sequence[Word], at: int, gap_s: float, ends: bool, language: str) -> Break:
    """What the break before word `at` costs."""
    if at == 0 or ends:
        return Break.SENTENCE
    by_text = break_before(text, words[at - 1], words[at], language)
    return min(by_text, Break.PAUSE) if gap_s >= _PAUSE_S and by_text < Break.WITHIN_UNIT else by_text
