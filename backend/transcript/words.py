"""Words of a transcript with their times, from the forced aligner's bare units or without them.

Law 3: the words partition the text. Every character but whitespace belongs to exactly one word, words are in order,
times are finite, inside the chunk, never overlapping, and end > start; this holds for any units at all.
A word of a spaced script is what stands between two spaces, however many units lie in it ("e-mail", Korean particles);
in a continuous script it is one unit, or one grapheme cluster where the aligner gave none. Marks that stand alone are
no words: they belong to the word before them; what opens (« ¿), or begins a line of dialogue (—), to the word after.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from backend.transcript.matching import Track, find, lay
from backend.transcript.pauses import SpeechClock
from backend.transcript.scripts import clusters, is_opening, is_parting, is_spoken, pieces
from backend.transcript.sentences import DASHES, ends_clause, ends_sentence
from backend.transcript.timing import Times, credible, fill, settle

# What a speaker waits after a mark, in characters: two are 0.13 s of English and 0.45 s of Chinese.
SENTENCE_PAUSE = 2.0
CLAUSE_PAUSE = 1.0

Slice: TypeAlias = tuple[int, int]  # [begin, end) of a text


@dataclass(frozen=True, slots=True)
class Word:
    """The slice [begin, end) of a transcript and when it is said, in seconds."""

    begin: int
    end: int
    start_s: float
    end_s: float

    def shifted(self, by: int) -> Word:
        """The same word in a text in which `by` more characters stand before it; its time is absolute and stays."""
        return replace(self, begin=self.begin + by, end=self.end + by)


@dataclass(slots=True)
class _Span:
    """Pieces [first, last] that one word is made of, and the believed times of the units in them."""

    first: int
    last: int
    times: list[Times]

    @property
    def known(self) -> Times | None:
        return (self.times[0][0], self.times[-1][1]) if self.times else None


def place(text: str, units: Iterable[tuple[str, float, float]], *, start_s: float, end_s: float) -> list[Word]:
    """Puts aligned units (text, start, end; absolute seconds) back on the text of the chunk [start_s, end_s].

    Raises ValueError for a chunk without room: start_s must be less than end_s.
    """
    aligned = list(units)
    found, track = lay(text)
    spans = list(_with_gaps(_spans(text, found, track, aligned, start_s, end_s), len(found)))
    slices = [(found[span.first][0], found[span.last][1]) for span in spans]
    return _timed(text, slices, [span.known for span in spans], start_s, end_s)


def spread(text: str, spoken: Sequence[Times]) -> list[Word]:
    """Coarse words without an aligner: the time in which somebody speaks, shared by length.

    `spoken`: (start, end) of speech, absolute seconds, sorted and apart. Raises ValueError if they hold no time.
    """
    slices = pieces(text)
    clock = SpeechClock(spoken)
    words = _timed(text, slices, [None] * len(slices), 0.0, clock.total_s)
    return [replace(word, start_s=clock.beginning(word.start_s), end_s=clock.end(word.end_s)) for word in words]


def _spans(
    text: str,
    found: Sequence[Slice],
    track: Track,
    aligned: Sequence[tuple[str, float, float]],
    start_s: float,
    end_s: float,
) -> list[_Span]:
    """The words that units lie in. Units that share a piece share the word."""
    parts: list[tuple[int, int]] = []
    times: list[Times] = []
    for unit, begin, end in find(track, [unit[0] for unit in aligned]):
        _, unit_start_s, unit_end_s = aligned[unit]
        for first, last, share, share_end in _by_token(text, found, track, begin, end):
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


def _by_token(
    text: str, found: Sequence[Slice], track: Track, begin: int, end: int
) -> Iterator[tuple[int, int, float, float]]:
    """Cuts a unit where the text has a space or a mark for one: first and last piece, its share of the unit's time."""
    start = begin
    for at in range(begin + 1, end + 1):
        before, after = track.owner[at - 1], track.owner[at] if at < end else None
        if after is None or (after != before and _are_apart(text, found[before], found[after])):
            yield track.owner[start], before, (start - begin) / (end - begin), (at - begin) / (end - begin)
            start = at


def _are_apart(text: str, before: Slice, after: Slice) -> bool:
    return before[1] != after[0] or is_parting(text[after[0] - 1])


def _with_gaps(spans: Iterable[_Span], count: int) -> Iterator[_Span]:
    """The spans, and between them a word for each piece that no unit lies in."""
    reached = 0
    for span in spans:
        for missed in range(reached, span.first):
            yield _Span(missed, missed, [])
        yield span
        reached = span.last + 1
    for missed in range(reached, count):
        yield _Span(missed, missed, [])


def _timed(
    text: str, slices: Sequence[Slice], known: Sequence[Times | None], start_s: float, end_s: float
) -> list[Word]:
    if not slices:
        return []
    slices, known = _with_marks(text, slices, known)
    following = [*(begin for begin, _ in slices[1:]), None]
    weights = [_weight(text, *piece, after) for piece, after in zip(slices, following, strict=True)]
    settled = settle(fill(known, weights, start_s, end_s), start_s, end_s)
    return [Word(*piece, *times) for piece, times in zip(slices, settled, strict=True)]


def _with_marks(
    text: str, slices: Sequence[Slice], known: Sequence[Times | None]
) -> tuple[list[Slice], list[Times | None]]:
    """The words, and with them the marks that stand alone: French « », dashes, emoji."""
    words: list[Slice] = []
    times: list[Times | None] = []
    opened: int | None = None  # where the marks begin that belong to the next word
    for (begin, end), time in zip(slices, known, strict=True):
        first = begin if opened is None else opened
        if any(map(is_spoken, text[begin:end])):
            words.append((first, end))
            times.append(time)
            opened = None
        elif opened is not None or not words or _opens(text, begin, end, words[-1]):
            opened = first
        else:
            words[-1] = words[-1][0], end
    if opened is not None:  # there is no next word
        words[-1:] = [(words[-1][0] if words else opened, slices[-1][1])]
    return words, times or [None]


def _opens(text: str, begin: int, end: int, before: Slice) -> bool:
    """Whether marks that stand alone belong to the word after them."""
    marks = text[begin:end]
    if marks == '"':
        return text.count('"', 0, begin) % 2 == 0
    if all(mark in DASHES for mark in marks):
        return ends_sentence(text, *before, begin)
    return all(map(is_opening, marks))


def _weight(text: str, begin: int, end: int, following: int | None) -> float:
    """How long a word takes to say, in characters; 0 for bare punctuation. `following`: where the next word begins."""
    spoken = sum(is_spoken(text[at]) for at, _ in clusters(text, begin, end))
    if not spoken or following is None:
        return spoken
    if ends_sentence(text, begin, end, following):
        return spoken + SENTENCE_PAUSE
    return spoken + (CLAUSE_PAUSE if ends_clause(text, begin, end) else 0.0)
