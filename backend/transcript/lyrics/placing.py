"""Words of a known text that have no times of their own, between those that have; and the words of each line.

Law 3 holds for what comes out, as long as the words that are given have it: every character but white space is in one
word, no word in two lines, and each has an end behind its start.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

from backend.transcript.lyrics.sung_lines import TextLine, TextToken
from backend.transcript.scripts import pieces
from backend.transcript.segments import Segment
from backend.transcript.words import Word

_MIN_ROOM_S = 1e-3  # for a word that is placed between its neighbours, as long as they can spare it


@dataclass(frozen=True)
class Gap:
    """The slice [begin, end) of the text without words, and the time between its neighbours, in seconds.

    `at`: the number of words before it.
    """

    begin: int
    end: int
    start_s: float
    end_s: float
    at: int


def slice_of(lines: Sequence[TextLine], tokens: Sequence[TextToken], first: int, after: int) -> tuple[int, int]:
    """[begin, end) of tokens [first, after) with the punctuation that belongs to them; all that of whole lines."""
    first_line, last_line = (
        lines[bisect_right(lines, tokens[at].begin, key=lambda line: line.begin) - 1] for at in (first, after - 1)
    )
    is_begin = first == 0 or tokens[first - 1].begin < first_line.begin
    is_end = after == len(tokens) or tokens[after].begin >= last_line.end
    return first_line.begin if is_begin else tokens[first].begin, last_line.end if is_end else tokens[after - 1].end


def gaps(text: str, words: Sequence[Word], duration_s: float) -> tuple[list[Word], list[Gap]]:
    """The `words`, in order, and where text lies between them; they are shortened where it would have no time at all.

    At least one word; a gap has an end behind its start.
    """
    placed = [*words]
    found = []
    for at in range(len(placed) + 1):
        begin, end = placed[at - 1].end if at else 0, placed[at].begin if at < len(placed) else len(text)
        rest = text[begin:end].strip()
        if not rest:
            continue
        begin = text.index(rest, begin)
        needed_s = _MIN_ROOM_S * len(pieces(rest))
        start_s, end_s = placed[at - 1].end_s if at else 0.0, placed[at].start_s if at < len(placed) else duration_s
        missing_s = max(needed_s - (end_s - start_s), 0.0)
        if missing_s and at:
            start_s -= min(missing_s, (placed[at - 1].end_s - placed[at - 1].start_s) / 2)
            placed[at - 1] = replace(placed[at - 1], end_s=start_s)
        if missing_s and at < len(placed):
            end_s += min(missing_s, (placed[at].end_s - placed[at].start_s) / 2)
            placed[at] = replace(placed[at], start_s=end_s)
        found.append(Gap(begin, begin + len(rest), start_s, end_s, at))
    return placed, found


def filled(words: Sequence[Word], fillings: Sequence[tuple[Gap, Sequence[Word]]]) -> list[Word]:
    """The words with those that fill the gaps, each between its neighbours."""
    result: list[Word] = []
    done = 0
    for gap, inside in fillings:
        result += words[done : gap.at]
        result += inside
        done = gap.at
    return [*result, *words[done:]]


def confined(text: str, words: Sequence[Word], lines: Sequence[TextLine]) -> list[Word]:
    """The words, none of them in two lines: punctuation that was taken to the word before it begins its own line.

    In a line that has no other word it is a word by itself.
    """
    begins = [line.begin for line in lines]
    result: list[Word] = []
    carried: int | None = None  # where the next word begins, because punctuation of its line stands before it
    for number, word in enumerate(words):
        begin = word.begin if carried is None else carried
        carried = None
        members = lines[bisect_right(begins, begin) - 1 : bisect_right(begins, word.end - 1)]
        following = words[number + 1].begin if number + 1 < len(words) else len(text)
        if len(members) > 1 and members[-1].begin <= following < members[-1].end:
            carried = members[-1].begin
            members = members[:-1]
        share_s = (word.end_s - word.start_s) / len(members)
        for at, line in enumerate(members):
            end_s = word.end_s if at + 1 == len(members) else word.start_s + (at + 1) * share_s
            span = max(begin, line.begin), min(word.end, line.end)
            result.append(Word(*span, word.start_s + at * share_s, end_s))
    return result


def line_segments(words: Sequence[Word], lines: Sequence[TextLine]) -> list[Segment]:
    """One segment for each line, with its words."""
    begins = [word.begin for word in words]
    edges = [bisect_right(begins, line.begin - 1) for line in lines] + [len(words)]
    return [Segment(line.begin, line.end, tuple(words[edges[at] : edges[at + 1]])) for at, line in enumerate(lines)]
