"""The words of a transcript with their times, from the forced aligner's bare units or without them.

- Law 3: the words partition the text. Every character but whitespace belongs to exactly one word, words are in order,
  times are finite, inside the chunk, never overlapping, and end > start. This holds for any units at all.
- In a script with spaces, a word is the text between two spaces, however many units it has ("e-mail", Korean
  particles). In a continuous script it is one unit, or one grapheme cluster where the aligner gave no unit.
- Punctuation that stands alone is no word. It belongs to the word before it, or, if it opens something (« ¿) or begins
  a line of dialogue (—), to the word after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from backend.thresholds import CLAUSE_PAUSE_CHARS, SENTENCE_PAUSE_CHARS
from backend.transcript.matching import FoldedText, fold_pieces, match_units
from backend.transcript.pauses import SpeechClock
from backend.transcript.scripts import clusters, is_opening, is_separator, is_spoken, pieces
from backend.transcript.sentences import DASHES, ends_clause, ends_sentence
from backend.transcript.timing import Times, credible, fill, settle

Slice: TypeAlias = tuple[int, int]  # [begin, end) of a text


@dataclass(frozen=True, slots=True)
class Word:
    """The slice [begin, end) of a transcript, and its time in seconds of the recording."""

    begin: int
    end: int
    start_s: float
    end_s: float

    def shifted(self, by: int) -> Word:
        """The same word in a text with `by` more characters before it. Its times are absolute and stay."""
        return replace(self, begin=self.begin + by, end=self.end + by)


@dataclass(slots=True)
class _Span:
    """The pieces first to last (inclusive) of one word, and the credible times of the units in them."""

    first: int
    last: int
    times: list[Times]

    @property
    def known(self) -> Times | None:
        return (self.times[0][0], self.times[-1][1]) if self.times else None


def place(text: str, units: Iterable[tuple[str, float, float]], *, start_s: float, end_s: float) -> list[Word]:
    """The words of a chunk [start_s, end_s], from aligned units (text, start, end; absolute seconds) of its text.

    Raises ValueError unless start_s < end_s.
    """
    aligned = list(units)
    found, folded = fold_pieces(text)
    spans = list(_with_unmatched(_spans(text, found, folded, aligned, start_s, end_s), len(found)))
    slices = [(found[span.first][0], found[span.last][1]) for span in spans]
    return _with_times(text, slices, [span.known for span in spans], start_s, end_s)


def spread(text: str, spoken: Sequence[Times]) -> list[Word]:
    """Words without an aligner, with coarse times: the time of the speech, divided by the words' lengths.

    `spoken`: (start, end) of speech, absolute seconds, sorted and disjoint. Raises ValueError if its total is 0.
    """
    slices = pieces(text)
    clock = SpeechClock(spoken)
    words = _with_times(text, slices, [None] * len(slices), 0.0, clock.total_s)
    return [
        replace(word, start_s=clock.word_start_s(word.start_s), end_s=clock.word_end_s(word.end_s)) for word in words
    ]


def _spans(
    text: str,
    found: Sequence[Slice],
    folded: FoldedText,
    aligned: Sequence[tuple[str, float, float]],
    start_s: float,
    end_s: float,
) -> list[_Span]:
    """The words that have a unit. Units that share a piece share the word."""
    parts: list[tuple[int, int]] = []
    times: list[Times] = []
    for unit, begin, end in match_units(folded, [unit[0] for unit in aligned]):
        _, unit_start_s, unit_end_s = aligned[unit]
        for first, last, share, share_end in _split_by_token(text, found, folded, begin, end):
            part_start_s = unit_start_s + share * (unit_end_s - unit_start_s)
            part_end_s = unit_start_s + share_end * (unit_end_s - unit_start_s) if share_end < 1 else unit_end_s
            parts.append((first, last))
            times.append((part_start_s, part_end_s))
    spans: list[_Span] = []
    for (first, last), known in zip(parts, credible(times, start_s, end_s), strict=True):
        if spans and first <= spans[-1].last:
            spans[-1].last = max(last, spans[-1].last)
        else:
            spans.append(_Span(first, last, []))
        if known is not None:
            spans[-1].times.append(known)
    return spans


def _split_by_token(
    text: str, found: Sequence[Slice], folded: FoldedText, begin: int, end: int
) -> Iterator[tuple[int, int, float, float]]:
    """Split a unit where the text has a space or a full-width separator.

    For each part: its first and last piece, and its share of the unit's time, from and to.
    """
    start = begin
    for at in range(begin + 1, end + 1):
        before, after = folded.owner[at - 1], folded.owner[at] if at < end else None
        if after is None or (after != before and _are_separate(text, found[before], found[after])):
            yield folded.owner[start], before, (start - begin) / (end - begin), (at - begin) / (end - begin)
            start = at


def _are_separate(text: str, before: Slice, after: Slice) -> bool:
    return before[1] != after[0] or is_separator(text[after[0] - 1])


def _with_unmatched(spans: Iterable[_Span], count: int) -> Iterator[_Span]:
    """The spans, and between them a word without times for each piece that has no unit."""
    reached = 0
    for span in spans:
        for unmatched in range(reached, span.first):
            yield _Span(unmatched, unmatched, [])
        yield span
        reached = span.last + 1
    for unmatched in range(reached, count):
        yield _Span(unmatched, unmatched, [])


def _with_times(
    text: str, slices: Sequence[Slice], known: Sequence[Times | None], start_s: float, end_s: float
) -> list[Word]:
    """The words for these slices. `known`: their credible times; the others are interpolated by their weights."""
    if not slices:
        return []
    slices, known = _attach_punctuation(text, slices, known)
    following = [*(begin for begin, _ in slices[1:]), None]
    weights = [_weight(text, *piece, after) for piece, after in zip(slices, following, strict=True)]
    settled = settle(fill(known, weights, start_s, end_s), start_s, end_s)
    return [Word(*piece, *times) for piece, times in zip(slices, settled, strict=True)]


def _attach_punctuation(
    text: str, slices: Sequence[Slice], known: Sequence[Times | None]
) -> tuple[list[Slice], list[Times | None]]:
    """Attach punctuation that stands alone (French « », dashes, emoji) to the word before or after it."""
    words: list[Slice] = []
    times: list[Times | None] = []
    opened: int | None = None  # where punctuation begins that belongs to the next word
    for (begin, end), time in zip(slices, known, strict=True):
        first = begin if opened is None else opened
        if any(map(is_spoken, text[begin:end])):
            words.append((first, end))
            times.append(time)
            opened = None
        elif opened is not None or not words or _belongs_to_next(text, begin, end, words[-1]):
            opened = first
        else:
            words[-1] = words[-1][0], end
    if opened is not None:  # there is no next word
        words[-1:] = [(words[-1][0] if words else opened, slices[-1][1])]
    return words, times or [None]


def _belongs_to_next(text: str, begin: int, end: int, before: Slice) -> bool:
    """Whether punctuation that stands alone belongs to the word after it. `before`: the word before it."""
    marks = text[begin:end]
    if marks == '"':
        return text.count('"', 0, begin) % 2 == 0
    if all(mark in DASHES for mark in marks):
        return ends_sentence(text, *before, begin)
    return all(map(is_opening, marks))


def _weight(text: str, begin: int, end: int, following: int | None) -> float:
    """The word's duration with the pause after it, in characters; 0 for bare punctuation.

    `following`: where the next word begins.
    """
    spoken = sum(is_spoken(text[at]) for at, _ in clusters(text, begin, end))
    if not spoken or following is None:
        return spoken
    if ends_sentence(text, begin, end, following):
        return spoken + SENTENCE_PAUSE_CHARS
    return spoken + (CLAUSE_PAUSE_CHARS if ends_clause(text, begin, end) else 0.0)
