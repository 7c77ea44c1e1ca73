"""Properties of characters and scripts: letters, combining marks, opening and closing punctuation, word pieces.

- Every answer is about characters, never about a language. All letter tables of this room are here.
- `continuous` names the scripts that are written without spaces between words: Han, Kana, Bopomofo, Thai, Lao, Burmese
  and Khmer. Hangul is written with spaces and is not one of them.

Sources: Unicode 15 Blocks.txt, UAX #29 (grapheme clusters), UAX #44 (general categories).
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache

_THAI = (0x0E00, 0x0E7F)
_GREEK = (0x0370, 0x03FF)
_HANGUL_SYLLABLES = (0xAC00, 0xD7A3)
_KANA = ((0x3041, 0x3096), (0x309D, 0x309F), (0x30A1, 0x30FA), (0x30FC, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9D))
_HAN = ((0x3005, 0x3007), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))

# First and last code point of each block, sorted. Punctuation and digits inside are excluded by their category.
_CONTINUOUS_BLOCKS = (
    _THAI,
    (0x0E80, 0x0EFF),  # Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x2FDF),  # Han radicals
    (0x3005, 0x3007),  # iteration mark, closing mark, zero
    (0x3021, 0x3029),  # Hangzhou numerals
    (0x3031, 0x303C),  # kana repeat marks and the like
    (0x3040, 0x312F),  # Hiragana, Katakana, Bopomofo
    (0x31A0, 0x31BF),  # Bopomofo extended
    (0x31F0, 0x31FF),  # Katakana phonetic extensions
    (0x3400, 0x4DBF),  # Han extension A
    (0x4E00, 0x9FFF),  # Han
    (0xA9E0, 0xA9FF),  # Burmese extended B
    (0xAA60, 0xAA7F),  # Burmese extended A
    (0xF900, 0xFAFF),  # Han compatibility
    (0xFF66, 0xFF9F),  # half-width Katakana
    (0x1AFF0, 0x1B16F),  # Kana extended and supplement
    (0x20000, 0x3FFFF),  # Han extensions B and later
)
_BLOCK_STARTS = tuple(first for first, _ in _CONTINUOUS_BLOCKS)

# Spacing letters that extend the cluster before them (UAX #29): Thai and Lao AM, half-width voiced sound marks.
_EXTENDING_LETTERS = frozenset("\u0e33\u0eb3\uff9e\uff9f")
# After these the next letter belongs to the same cluster, as a subscript: Khmer coeng, Burmese virama.
_SUBSCRIPT_MARKS = frozenset("\u17d2\u1039")
_STRAIGHT_QUOTES = frozenset("\"'")
_SEPARATORS = frozenset("。，、！？；")  # not ： and ．, which occur inside times and numbers
_SPOKEN_SIGNS = frozenset("%&@")


@lru_cache(maxsize=1 << 14)
def is_continuous(char: str) -> bool:
    """Whether it is a letter of a script that is written without spaces between words."""
    block = bisect_right(_BLOCK_STARTS, ord(char)) - 1
    category = unicodedata.category(char)
    return block >= 0 and ord(char) <= _CONTINUOUS_BLOCKS[block][1] and (category[0] == "L" or category == "Nl")


@lru_cache(maxsize=1 << 14)
def is_letter(char: str) -> bool:
    """Whether it is a letter or digit of any script. The aligner's units hold these and the apostrophe only."""
    return unicodedata.category(char)[0] in "LN"


@lru_cache(maxsize=1 << 14)
def is_spoken(char: str) -> bool:
    """Whether it is pronounced: letters, digits, and signs that are read out (5 %, 3 €, a + b); not emoji."""
    return is_letter(char) or char in _SPOKEN_SIGNS or unicodedata.category(char) in {"Sc", "Sm"}


@lru_cache(maxsize=1 << 14)
def is_opening(char: str) -> bool:
    """Whether it is opening punctuation: ( [ „ « “ 「 ¿ ¡. A straight quote depends on its context and is not."""
    return char in "¿¡" or unicodedata.category(char) in {"Ps", "Pi"}


@lru_cache(maxsize=1 << 14)
def is_closing(char: str) -> bool:
    """Whether it is closing punctuation: ) ] ” » 」 and straight quotes; or invisible, such as a direction mark."""
    return char in _STRAIGHT_QUOTES or unicodedata.category(char) in {"Pe", "Pf", "Cf", "Mn", "Me"}


@lru_cache(maxsize=1 << 14)
def is_full_width_punctuation(char: str) -> bool:
    """Whether it is CJK punctuation, which includes its own space: 。 、 「 」 ！ ？ ，."""
    block = 0x3001 <= ord(char) <= 0x303F or 0x30A0 <= ord(char) <= 0x30FF or 0xFF01 <= ord(char) <= 0xFF65
    return block and unicodedata.category(char)[0] == "P"


def is_separator(char: str) -> bool:
    """Whether it is a full-width mark that replaces a mark and a space: it separates words."""
    return char in _SEPARATORS


def is_thai(char: str) -> bool:
    return _THAI[0] <= ord(char) <= _THAI[1]


def is_greek(char: str) -> bool:
    return _GREEK[0] <= ord(char) <= _GREEK[1]


def is_hangul_syllable(char: str) -> bool:
    return _HANGUL_SYLLABLES[0] <= ord(char) <= _HANGUL_SYLLABLES[1]


def is_kana(char: str) -> bool:
    """Whether it is a letter of Hiragana or Katakana, the sign of a long vowel included."""
    return any(first <= ord(char) <= last for first, last in _KANA)


def is_han(char: str) -> bool:
    return any(first <= ord(char) <= last for first, last in _HAN)


@lru_cache(maxsize=1 << 14)
def script_of(char: str) -> str:
    """The first word of the letter's name in Unicode, which is its script (LATIN, CYRILLIC, CJK); "" for no letter."""
    if unicodedata.category(char)[0] != "L":
        return ""
    return unicodedata.name(unicodedata.normalize("NFKC", char)[0], "").replace("-", " ").partition(" ")[0]


@lru_cache(maxsize=1 << 14)
def _extends(char: str) -> bool:
    return unicodedata.category(char) in {"Mn", "Mc", "Me", "Cf"} or char in _EXTENDING_LETTERS


def clusters(text: str, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """The grapheme clusters of text[begin:end], as slices: as much of UAX #29 as words need.

    Flags and joined emoji are split. That is harmless, because inside a token a word begins only at a letter or at an
    opening mark.
    """
    start = begin
    for at in range(begin + 1, end):
        if not _extends(text[at]) and text[at - 1] not in _SUBSCRIPT_MARKS:
            yield start, at
            start = at
    if start < end:
        yield start, end


def pieces(text: str) -> list[tuple[int, int]]:
    """The smallest words of `text` as slices [begin, end): everything but the whitespace, in order.

    Whitespace separates tokens, no-break spaces included. Inside a token each cluster of a continuous script is a
    piece, and so is each run of other letters between them; full-width separators split, too. Punctuation belongs to
    the piece before it, opening punctuation to the piece after it, and leading punctuation to the token's first piece.
    """
    return [piece for token in re.finditer(r"\S+", text) for piece in _token_pieces(text, *token.span())]


def _token_pieces(text: str, begin: int, end: int) -> Iterator[tuple[int, int]]:
    start = begin
    core: bool | None = None  # whether the letters of this piece are continuous; None before its first letter
    opener: int | None = None  # where the punctuation that opens the next piece begins, if there is a next piece
    separated = False  # a full-width separator was passed since the last letter
    quotes = 0
    for at, _ in clusters(text, begin, end):
        char = text[at]
        quotes += char == '"'
        if is_letter(char):
            continuous = is_continuous(char)
            if core is not None and (core or continuous or separated):
                cut = at if opener is None else opener
                yield start, cut
                start = cut
            core, opener, separated = continuous, None, False
        elif is_opening(char) or (char == '"' and quotes % 2 == 1):
            opener = at if opener is None and core is not None else opener
        elif is_closing(char):
            opener = None
        separated = separated or is_separator(char)
    yield start, end
