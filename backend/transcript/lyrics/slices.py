"""Which lines of a known text were heard, and which slices of it belong to which stretch of sound.

- A line is heard if half of its letters are in words that were recognised close together. Words of other lines that
  agree with something by chance count for nothing.
- A slice is a piece of the text whose words follow each other in one passage. Words that the recogniser got wrong or
  missed are part of it as long as there is speech for them. What has none is in no slice: it is placed between its
  neighbours.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from backend.thresholds import (
    MAX_HOLE_LETTERS,
    MAX_HOLE_SHARE,
    MAX_LINE_STRETCH,
    MAX_LINE_STRETCH_WORDS,
    MAX_UNKNOWN_LETTERS,
    MIN_HEARD_SHARE,
)
from backend.transcript.lyrics.sung_lines import TextLine, TextToken
from backend.transcript.speech_rate import spoken_letters


@dataclass(frozen=True, slots=True)
class HeardToken:
    """A recognised word or character with its times in seconds; `passage`: the number of its chunk."""

    key: str
    start_s: float
    end_s: float
    passage: int


@dataclass(slots=True)
class TextSlice:
    """Tokens [first, after) of the text and [heard_first, heard_after) of what was heard, in one passage.

    `heard_at`: for each token the heard one that it is, None for those between that were misheard or missed.
    """

    first: int
    after: int
    heard_first: int
    heard_after: int
    heard_at: list[int | None]

    @property
    def is_exact(self) -> bool:
        """Whether every word was recognised, so that the heard ones have its times."""
        return None not in self.heard_at


@dataclass(frozen=True)
class Hearing:
    """`unheard`: which of the lines were not heard, by position. `slices` are in order, and share nothing."""

    unheard: frozenset[int]
    slices: tuple[TextSlice, ...]


def hearing(
    lines: Sequence[TextLine],
    tokens: Sequence[TextToken],
    heard: Sequence[HeardToken],
    pairs: Sequence[tuple[int, int]],
) -> Hearing:
    """What the `pairs` (token, heard token), rising in both, say about the lines. All arguments are in order."""
    begins = [token.begin for token in tokens]
    spans = [(bisect_left(begins, line.begin), bisect_left(begins, line.end)) for line in lines]
    letters = [spoken_letters(token.key) for token in tokens]
    kept = _credible(spans, letters, pairs)
    is_heard = [any(token in kept for token in range(first, after)) for first, after in spans]
    slicer = _Slicer(spans, letters, [spoken_letters(token.key) for token in heard], heard, kept)
    slices: list[TextSlice] = []
    # A line without a letter is no part of a stretch: it has no time of its own.
    for found, group in groupby(range(len(lines)), key=lambda at: is_heard[at]):
        if found:
            members = [*group]
            slices += slicer.slices(spans[members[0]][0], spans[members[-1]][1])
    unheard = frozenset(at for at, (first, after) in enumerate(spans) if first < after and not is_heard[at])
    return Hearing(unheard, tuple(slices))


def _credible(
    spans: Sequence[tuple[int, int]], letters: Sequence[int], pairs: Sequence[tuple[int, int]]
) -> dict[int, int]:
    """The pairs of the lines that were heard, without those far from the others of their line."""
    kept: dict[int, int] = {}
    firsts = [token for token, _ in pairs]
    for first, after in spans:
        found = pairs[bisect_left(firsts, first) : bisect_left(firsts, after)]
        close = _closest(found, letters, int(MAX_LINE_STRETCH * (after - first)) + MAX_LINE_STRETCH_WORDS)
        if close and sum(letters[token] for token, _ in close) >= MIN_HEARD_SHARE * sum(letters[first:after]):
            kept.update(close)
    return kept


def _closest(found: Sequence[tuple[int, int]], letters: Sequence[int], width: int) -> Sequence[tuple[int, int]]:
    """The pairs with the most letters whose heard tokens are among `width` in a row."""
    best, most, begin, total = (0, 0), 0, 0, 0
    for end, (token, at) in enumerate(found):
        total += letters[token]
        while at - found[begin][1] >= width:
            total -= letters[found[begin][0]]
            begin += 1
        if total > most:
            best, most = (begin, end + 1), total
    return found[best[0] : best[1]]


class _Slicer:
    def __init__(
        self,
        spans: Sequence[tuple[int, int]],
        letters: Sequence[int],
        heard_letters: Sequence[int],
        heard: Sequence[HeardToken],
        kept: Mapping[int, int],
    ) -> None:
        self._line_of = {token: line for line, span in enumerate(spans) for token in range(*span)}
        self._letters = letters
        self._heard_letters = heard_letters
        self._heard = heard
        self._kept = kept
        self._taken = sorted(kept.values())

    def slices(self, first: int, after: int) -> Iterator[TextSlice]:
        """The slices of a stretch of lines that were all heard: tokens [first, after)."""
        matched = [token for token in range(first, after) if token in self._kept]
        current = self._opened(matched[0])
        self._extend_before(current, first)
        for token, following in pairwise(matched):
            if self._continues(token, following):
                self._extend(current, following)
                continue
            cut = self._cut(token, following)
            self._extend_after(current, cut)
            yield current
            current = self._opened(following)
            self._extend_before(current, cut)
        self._extend_after(current, after)
        yield current

    def _opened(self, token: int) -> TextSlice:
        at = self._kept[token]
        return TextSlice(token, token + 1, at, at + 1, [at])

    def _extend(self, current: TextSlice, following: int) -> None:
        current.heard_at += [None] * (following - current.after) + [self._kept[following]]
        current.after, current.heard_after = following + 1, self._kept[following] + 1

    def _continues(self, token: int, following: int) -> bool:
        """Whether what lies between two matched tokens belongs to one slice with them."""
        at, next_at = self._kept[token], self._kept[following]
        between, heard = sum(self._letters[token + 1 : following]), sum(self._heard_letters[at + 1 : next_at])
        is_together = self._heard[at].passage == self._heard[next_at].passage
        return is_together and _fits(between, heard) and heard <= MAX_HOLE_SHARE * between + MAX_UNKNOWN_LETTERS

    def _cut(self, token: int, following: int) -> int:
        """The first token that belongs to the slice of `following`: of its line, or as the speech is divided."""
        line = self._line_of[following]
        if self._line_of[token] != line:
            return next(at for at in range(token + 1, following + 1) if self._line_of[at] == line)
        before = sum(self._heard_letters[at] for at in self._free_after(self._kept[token]))
        behind = sum(self._heard_letters[at] for at in self._free_before(self._kept[following]))
        between = sum(self._letters[token + 1 : following])
        cut, passed = token + 1, 0
        while cut < following and passed + self._letters[cut] / 2 < between * before / max(before + behind, 1):
            passed += self._letters[cut]
            cut += 1
        return cut

    def _extend_before(self, current: TextSlice, first: int) -> None:
        """Add the tokens from `first` on to the front of the slice, if there is speech for them."""
        free = self._free_before(current.heard_first)
        missing = sum(self._letters[first : current.first])
        if not missing or not _fits(missing, sum(self._heard_letters[at] for at in free)):
            return
        current.heard_at[:0] = [None] * (current.first - first)
        current.first = first
        while free and missing > 0:
            current.heard_first = free.pop()
            missing -= self._heard_letters[current.heard_first]

    def _extend_after(self, current: TextSlice, after: int) -> None:
        """Add the tokens before `after` to the end of the slice, if there is speech for them."""
        free = self._free_after(current.heard_after - 1)[::-1]
        missing = sum(self._letters[current.after : after])
        if not missing or not _fits(missing, sum(self._heard_letters[at] for at in free)):
            return
        current.heard_at += [None] * (after - current.after)
        current.after = after
        while free and missing > 0:
            current.heard_after = (at := free.pop()) + 1
            missing -= self._heard_letters[at]

    def _free_after(self, at: int) -> list[int]:
        """The heard tokens behind `at` in its passage, up to the next one that is matched."""
        number = bisect_left(self._taken, at + 1)
        limit = self._taken[number] if number < len(self._taken) else len(self._heard)
        return [free for free in range(at + 1, limit) if self._heard[free].passage == self._heard[at].passage]

    def _free_before(self, at: int) -> list[int]:
        number = bisect_left(self._taken, at) - 1
        limit = self._taken[number] + 1 if number >= 0 else 0
        return [free for free in range(limit, at) if self._heard[free].passage == self._heard[at].passage]


def _fits(letters: int, heard_letters: int) -> bool:
    """Whether so much text may be what was heard: not at all if it is far longer."""
    return letters <= MAX_HOLE_SHARE * heard_letters + MAX_HOLE_LETTERS
