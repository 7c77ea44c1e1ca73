"""Merges the words of a whole recording into sentence segments.

- Law 3: segments partition the words in order, and their slices with the whitespace between them are the text. Nothing
  is added, dropped or rewritten. No segment is empty.
- Segments end at long gaps and at the ends of sentences. A segment over a limit is cut again, at clause marks first and
  then at its widest gap.
- Or, if captions are asked for, segments are captions (subtitles/captions.py), and long gaps and ends of sentences are
  the best places to end one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from statistics import median

from backend.thresholds import GAP_FACTOR, MIN_GAP_S
from backend.transcript.sentences import ends_clause, ends_sentence
from backend.transcript.subtitles.captions import CaptionRules, captions
from backend.transcript.words import Word

_ROUNDING_S = 1e-6  # 4.1 - 3.8 is less than 0.3 in floating point


@dataclass(frozen=True, slots=True)
class Segment:
    """The slice [begin, end) of a transcript, and its words, at least one.

    `shown_until_s`: when it disappears, if it is a caption, in seconds of the recording.
    """

    begin: int
    end: int
    words: tuple[Word, ...]
    shown_until_s: float | None = None

    @property
    def start_s(self) -> float:
        return self.words[0].start_s

    @property
    def end_s(self) -> float:
        return self.words[-1].end_s if self.shown_until_s is None else self.shown_until_s


@dataclass(frozen=True)
class SegmentRules:
    """`gap_threshold_s` None: derived from the recording's median gap (GAP_FACTOR). `max_…` None: no limit.

    `captions`: the segments are captions within these bounds; then no `max_…` counts.
    """

    gap_threshold_s: float | None = None
    max_seconds: float | None = None
    max_chars: int | None = None
    captions: CaptionRules | None = None


def merge(
    text: str,
    words: Sequence[Word],
    rules: SegmentRules,
    languages: Sequence[tuple[int, str]] = (),
    duration_s: float = inf,
) -> list[Segment]:
    """The segments of `text`, given its words. Only a single word that is too long by itself exceeds a limit.

    `languages`: where in `text` a passage begins, and the code of its language ("" if not known), in order.
    `duration_s`: of the recording; a caption is shown no longer.
    """
    of_words = _languages(words, languages)
    sentences = list(_sentences(text, words, _threshold_s(words, rules), of_words))
    if rules.captions is not None:
        ends = {after for _, after in sentences}
        cut = captions(text, words, rules.captions, ends=ends, languages=of_words, duration_s=duration_s)
        return [_segment(words, caption.first, caption.after, caption.end_s) for caption in cut]
    return [
        _segment(words, first, after)
        for sentence in sentences
        for first, after in _cut_to_limits(text, words, rules, *sentence)
    ]


def _segment(words: Sequence[Word], first: int, after: int, shown_until_s: float | None = None) -> Segment:
    return Segment(words[first].begin, words[after - 1].end, tuple(words[first:after]), shown_until_s)


def _languages(words: Sequence[Word], languages: Sequence[tuple[int, str]]) -> list[str]:
    """The code of each word's language."""
    begins = [begin for begin, _ in languages]
    codes = ["", *(code for _, code in languages)]
    return [codes[bisect_right(begins, word.begin)] for word in words]


def _gap_s(words: Sequence[Word], at: int) -> float:
    """The silence before word number `at`."""
    return words[at].start_s - words[at - 1].end_s


def _threshold_s(words: Sequence[Word], rules: SegmentRules) -> float:
    if rules.gap_threshold_s is not None:
        return rules.gap_threshold_s
    if len(words) < 2:
        return MIN_GAP_S
    return max(GAP_FACTOR * median(_gap_s(words, at) for at in range(1, len(words))), MIN_GAP_S)


def _sentences(
    text: str, words: Sequence[Word], threshold_s: float, languages: Sequence[str]
) -> Iterator[tuple[int, int]]:
    """Word numbers [first, after) of the parts between long gaps and ends of sentences."""
    first = 0
    for at in range(1, len(words)):
        word, following = words[at - 1], words[at]
        is_first = at - 1 == first
        is_end = ends_sentence(text, word.begin, word.end, following.begin, languages[at - 1], is_first=is_first)
        if is_end or _gap_s(words, at) >= threshold_s - _ROUNDING_S:
            yield first, at
            first = at
    if words:
        yield first, len(words)


def _cut_to_limits(
    text: str, words: Sequence[Word], rules: SegmentRules, first: int, after: int
) -> Iterator[tuple[int, int]]:
    """Cut words [first, after) until every part is within the limits or a single word. In order."""
    uncut = [(first, after)]
    while uncut:
        first, after = uncut.pop()
        if after - first == 1 or _fits(words, rules, first, after):
            yield first, after
            continue
        cut = _cut(text, words, first, after)
        uncut += [(cut, after), (first, cut)]


def _fits(words: Sequence[Word], rules: SegmentRules, first: int, after: int) -> bool:
    chars = words[after - 1].end - words[first].begin
    seconds = words[after - 1].end_s - words[first].start_s
    too_long = rules.max_seconds is not None and seconds > rules.max_seconds + _ROUNDING_S
    return not too_long and (rules.max_chars is None or chars <= rules.max_chars)


def _cut(text: str, words: Sequence[Word], first: int, after: int) -> int:
    """Where to cut in two: at the clause mark nearest the middle, or else at the widest gap.

    Of equal gaps (words without aligned times have no gaps) one with a space is preferred, because a space separates
    phrases in Thai, and then the one nearest the middle.
    """
    middle = (words[first].begin + words[after - 1].end) / 2
    places = range(first + 1, after)
    clause_ends = [at for at in places if ends_clause(text, words[at - 1].begin, words[at - 1].end)]
    if clause_ends:
        return min(clause_ends, key=lambda at: abs(words[at].begin - middle))

    def width(at: int) -> tuple[float, bool, float]:
        spaced = words[at].begin > words[at - 1].end
        return round(_gap_s(words, at), 3), spaced, -abs(words[at].begin - middle)

    return max(places, key=width)
