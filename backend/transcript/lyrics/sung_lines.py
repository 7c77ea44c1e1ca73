"""A known text: what is sung of it, in lines, and the tokens by which it is compared with what was heard.

- Nothing of the text is changed: what is not sung is left out (lrc.py), the rest stands as it was given.
- A token is a word, or a single character of a script that is written without spaces or with syllable blocks: there the
  spaces of two texts differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from backend.transcript.lyrics.lrc import parse_line
from backend.transcript.matching import fold
from backend.transcript.scripts import clusters, is_han, is_hangul_syllable, is_kana, is_letter, pieces, script_of
from backend.transcript.sentences import ends_sentence

LINE_BREAK = re.compile("\r\n|[\n\r\x0b\x0c\x85\u2028\u2029]")
_BYTE_ORDER_MARK = "\ufeff"
_LETTERS_PER_CHARACTER = 3  # of speech, as in transcript/speech_rate.py: English words in a Chinese text are no more
_SCRIPTS = (
    is_kana,
    is_hangul_syllable,
    is_han,
    lambda char: script_of(char) == "CYRILLIC",
    lambda char: script_of(char) == "LATIN",
)


class TextLine(NamedTuple):
    """The slice [begin, end) of a known text, without outer white space; `number`: of its line as given, from 1."""

    number: int
    begin: int
    end: int


@dataclass(frozen=True)
class KnownText:
    """`text`: what is sung, with the line breaks between it. `lines`: those that are not empty; of prose, sentences.

    `is_prose`: it was given without a line break.
    """

    text: str
    lines: tuple[TextLine, ...]
    is_prose: bool


class TextToken(NamedTuple):
    """The slice [begin, end) of a text, and its folded key."""

    key: str
    begin: int
    end: int


def known_text(given: str) -> KnownText:
    """What is sung of a text as a client gives it: plain, LRC, or with headings. `lines` is empty where nothing is."""
    rows = LINE_BREAK.split(given.removeprefix(_BYTE_ORDER_MARK))
    is_prose = sum(bool(row.strip()) for row in rows) == 1
    parts: list[str] = []
    lines: list[TextLine] = []
    length = 0
    for number, row in enumerate(rows, start=1):
        text = parse_line(row).text
        if not text.strip():
            if row.strip() or not parts:  # a heading goes with its line; an empty line between verses stays
                continue
        elif not parts:
            text = text.lstrip()
        begin = length + len(text) - len(text.lstrip())
        if text.strip():
            lines.append(TextLine(number, begin, begin + len(text.strip())))
        parts.append(text)
        length += len(text) + 1
    text = "\n".join(parts)[: lines[-1].end if lines else 0]
    return KnownText(text, tuple(_sentences(text)) if is_prose and lines else tuple(lines), is_prose)


def tokens(text: str, begin: int = 0, end: int | None = None) -> Iterator[TextToken]:
    """The tokens of text[begin:end] that have a letter or a digit."""
    for first, after in pieces(text[begin:end]):
        yield from _piece_tokens(text, begin + first, begin + after)


def _piece_tokens(text: str, begin: int, end: int) -> Iterator[TextToken]:
    """A piece as one token, or, of Hangul, as one for each syllable; punctuation belongs to the token before it."""
    starts = [begin]
    if any(is_hangul_syllable(char) for char in text[begin:end]):
        starts = [at for at, _ in clusters(text, begin, end) if is_letter(text[at])] or [begin]
        starts[0] = begin
    for start, stop in zip(starts, [*starts[1:], end], strict=True):
        if key := fold(text[start:stop]):
            yield TextToken(key, start, stop)


def language_by_script(text: str) -> str:
    """The code of the aligner's language that the letters of a text are written in, "" where there are several."""
    kana, hangul, han, cyrillic, latin = (sum(map(is_one, text)) for is_one in _SCRIPTS)
    others = _LETTERS_PER_CHARACTER * (kana + hangul + han) + cyrillic
    if latin > others or not others:
        return ""
    if kana:
        return "ja"
    return max((hangul, "ko"), (han, "zh"), (cyrillic, "ru"))[1]


def _sentences(text: str) -> Iterator[TextLine]:
    """The sentences of a text without line breaks, numbered from 1."""
    found: Sequence[tuple[int, int]] = pieces(text)
    first, number = 0, 1
    for at in range(1, len(found)):
        if ends_sentence(text, *found[at - 1], found[at][0], "", is_first=at - 1 == first):
            yield TextLine(number, found[first][0], found[at - 1][1])
            first, number = at, number + 1
    yield TextLine(number, found[first][0], found[-1][1])
