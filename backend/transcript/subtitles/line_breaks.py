"""Where a caption or a line of it may end: what a break between two words costs, how wide a text is, and its lines.

Sources: Netflix' and the BBC's style guides for timed text (break at clause marks, keep an article with its noun, a
number and a name together, at most two lines, the lower one the longer), JIS X 4051 for what may not begin a line.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from itertools import accumulate, pairwise

from backend.transcript.scripts import is_continuous, is_han, is_kana, is_letter, pieces
from backend.transcript.sentences import ends_clause
from backend.transcript.words import Word

_ROUNDING = 1e-9  # widths are sums of fractions of a line
_KATAKANA = (0x30A1, 0x30FE)
_ARTICLES: dict[str, frozenset[str]] = {
    "de": frozenset("der die das den dem des ein eine einen einem einer eines".split()),
    "el": frozenset("ο η το οι τα τον την του της των τους τις στο στη στον στην ένας μια μία ένα".split()),
    "en": frozenset("a an the".split()),
    "es": frozenset("el la los las un una unos unas".split()),
    "fr": frozenset("le la les un une des du au aux".split()),
    "hu": frozenset("a az egy".split()),
    "it": frozenset("il lo la i gli le un uno una".split()),
    "nl": frozenset("de het een".split()),
    "pt": frozenset("o a os as um uma uns umas".split()),
    "ro": frozenset("un o niște".split()),
    "sv": frozenset("en ett den det de".split()),
    "da": frozenset("en et den det de".split()),
}


class Break(IntEnum):
    """What a break costs, in no unit: only the order and the distances count. Chosen by reading, not measured."""

    SENTENCE = 0
    CLAUSE = 2
    PAUSE = 3
    PHRASE = 8  # between scripts where a phrase often begins
    WORD = 10
    WITHIN_PHRASE = 30  # an inflection or a particle would begin the line
    WITHIN_UNIT = 60  # inside a number, a name, or a word of a script without spaces; behind an article


@dataclass(frozen=True)
class LineRules:
    """Characters of a line; `wide` ones are Chinese, Japanese and Korean. Lines of mixed text count shares of both."""

    chars: int
    wide_chars: int
    lines: int


class Layout:
    """Widths and breaks of a text's words. Word numbers are those of `words`; a break lies before a word."""

    def __init__(self, text: str, words: Sequence[Word], breaks: Sequence[Break], rules: LineRules) -> None:
        """`breaks`: of each word, the break before it, from `break_before`."""
        self.breaks = breaks
        self._begins = [word.begin for word in words]
        self._ends = [word.end for word in words]
        self._chars = [0, *accumulate(map(_columns, text))]
        shares = (0.0, 1 / rules.chars, 1 / rules.wide_chars)
        self._shares = [0.0, *accumulate(shares[_kind(char)] for char in text)]
        self._lines = rules.lines

    def chars(self, first: int, after: int) -> int:
        """Characters of the words [first, after) with what stands between them; combining marks count nothing."""
        return self._chars[self._ends[after - 1]] - self._chars[self._begins[first]]

    def width(self, first: int, after: int) -> float:
        """Their width in lines: 1.0 fills one."""
        return self._shares[self._ends[after - 1]] - self._shares[self._begins[first]]

    def line_break(self, first: int, after: int) -> int | None:
        """Before which word the second line of a caption of these words begins; `first`: there is one line.

        None: they fit into no allowed lines.
        """
        if self.width(first, after) <= 1 + _ROUNDING:
            return first
        places = self._places(first, after)
        return min(places, key=lambda at: self._break_cost(first, at, after)) if places else None

    def _places(self, first: int, after: int) -> range:
        """Before which words a second line may begin, so that both lines fit."""
        if self._lines < 2:
            return range(0)
        highest = self._shares[self._begins[first]] + 1 + _ROUNDING
        lowest = self._shares[self._ends[after - 1]] - 1 - _ROUNDING
        low = bisect_left(self._begins, lowest, first + 1, after, key=self._shares.__getitem__)
        high = bisect_right(self._ends, highest, first, after, key=self._shares.__getitem__)
        return range(low, min(high, after - 1) + 1)

    def _break_cost(self, first: int, at: int, after: int) -> float:
        """The break's cost with that of unequal lines; of two equal ones the shorter line is above."""
        difference = self.width(at, after) - self.width(first, at)
        return self.breaks[at] + 20 * abs(difference) + (1 if difference < 0 else 0)

    def wrap_cost(self, first: int, after: int) -> int | None:
        """The cost of the break between the lines, 0 for one line. None: they fit into no allowed lines."""
        at = self.line_break(first, after)
        if at is None:
            return None
        return 0 if at == first else int(self.breaks[at])


def wrapped(text: str, language: str, rules: LineRules) -> list[str]:
    """The lines of a caption; its whole text in one line where it does not fit into the allowed ones."""
    words = [Word(begin, end, 0.0, 0.0) for begin, end in pieces(text)]
    breaks = [break_before(text, *pair, language) for pair in pairwise(words)]
    at = Layout(text, words, [Break.SENTENCE, *breaks], rules).line_break(0, len(words)) if words else None
    return [text[: words[at].begin].rstrip(), text[words[at].begin :]] if at else [text]


def break_before(text: str, before: Word, word: Word, language: str) -> Break:
    """What a break between two words of one sentence costs, by the text alone. `language`: a code, or ""."""
    if ends_clause(text, before.begin, before.end):
        return Break.CLAUSE
    last, first = text[before.begin : before.end], text[word.begin : word.end]
    if before.end == word.begin:
        return _break_inside_token(last[-1], first[0])
    if _belong_together(last, first, _ARTICLES.get(language, frozenset())):
        return Break.WITHIN_UNIT
    return Break.WORD


def _belong_together(last: str, first: str, articles: Collection[str]) -> bool:
    if last.lower() in articles:
        return True
    if last[-1].isdigit() or first[0].isdigit():
        return last[-1].isdigit() or last[-1] in "$€£¥№§"  # "10 000", "3 kg", "€ 5"
    return first[0].isupper() and last[0].isupper() and len(last) > 1 and is_letter(last[-1])  # two parts of a name


def _break_inside_token(last: str, first: str) -> Break:
    """Between two words of a script without spaces."""
    if not (is_continuous(last) and is_continuous(first)):
        return Break.WORD if is_han(last) or is_han(first) else Break.WITHIN_PHRASE
    if is_han(last) and is_han(first):
        return Break.WORD
    if is_kana(last) and is_han(first):
        return Break.PHRASE
    if is_kana(first):
        katakana = _is_katakana(last), _is_katakana(first)
        if katakana == (True, True):
            return Break.WITHIN_UNIT
        return Break.PHRASE if katakana == (False, True) else Break.WITHIN_PHRASE
    return Break.WITHIN_UNIT


def _is_katakana(char: str) -> bool:
    return _KATAKANA[0] <= ord(char) <= _KATAKANA[1]


@lru_cache(maxsize=1 << 14)
def _kind(char: str) -> int:
    """0: without width, 1: narrow, 2: wide."""
    if unicodedata.category(char) in {"Mn", "Me", "Cf"}:
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _columns(char: str) -> int:
    return min(_kind(char), 1)
