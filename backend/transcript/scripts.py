"""How scripts are written: which leave no space between words, what clings to a letter, what opens and closes.

Rules: every answer is about characters, never about a language. `continuous` is the name here for Han, Kana, Bopomofo,
Thai, Lao, Burmese and Khmer letters, which stand side by side without spaces; Hangul is written with spaces and is not.
Sources: Unicode 15 Blocks.txt, UAX #29 (grapheme clusters), UAX #44 (general categories).
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache

# First and last code point of each block, in order. Punctuation and digits inside them are left out by their category.
_CONTINUOUS_BLOCKS = (
    (0x0E00, 0x0E7F),  # Thai
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

# Spacing letters that UAX #29 counts to the cluster before them: Thai and Lao AM, half-width voiced sound marks.
_CLINGING_LETTERS = frozenset("\u0e33\u0eb3\uff9e\uff9f")
# After these the next letter belongs to the same cluster: Khmer coeng, Burmese virama (subscript letters).
_STACKERS = frozenset("\u17d2\u1039")
_STRAIGHT_QUOTES = frozenset("\"'")
_PARTING = frozenset("。，、！？；")  # not ： and ．, which stand inside times and numbers
_SPOKEN_SIGNS = frozenset("%&@")


@lru_cache(maxsize=1 << 14)
def is_continuous(char: str) -> bool:
    """A letter of a script that leaves no space between words."""
    block = bisect_right(_BLOCK_STARTS, ord(char)) - 1
    category = unicodedata.category(char)
    return block >= 0 and ord(char) <= _CONTINUOUS_BLOCKS[block][1] and (category[0] == "L" or category == "Nl")


@lru_cache(maxsize=1 << 14)
def is_letter(char: str) -> bool:
    """A letter or digit of any script: what the forced aligner keeps of a text, apart from the apostrophe."""
    return unicodedata.category(char)[0] in "LN"


@lru_cache(maxsize=1 << 14)
def is_spoken(char: str) -> bool:
    """Takes time to say: letters and digits, and signs that are read out (5 %, 3 €, a + b). Emoji are not."""
    return is_letter(char) or char in _SPOKEN_SIGNS or unicodedata.category(char) in {"Sc", "Sm"}


@lru_cache(maxsize=1 << 14)
def is_opening(char: str) -> bool:
    """Opens what follows: ( [ „ « “ 「 ¿ ¡. The straight quote is not here: only its surroundings tell."""
    return char in "¿¡" or unicodedata.category(char) in {"Ps", "Pi"}


@lru_cache(maxsize=1 << 14)
def is_closing(char: str) -> bool:
    """Closes what went before: ) ] ” » 」 and straight quotes; with them the invisible, such as a direction mark."""
    return char in _STRAIGHT_QUOTES or unicodedata.category(char) in {"Pe", "Pf", "Cf", "Mn", "Me"}


@lru_cache(maxsize=1 << 14)
def is_full_width_punctuation(char: str) -> bool:
    """Punctuation of CJK typography, which brings its own space: 。 、 「 」 ！ ？ ，."""
    block = 0x3001 <= ord(char) <= 0x303F or 0x30A0 <= ord(char) <= 0x30FF or 0xFF01 <= ord(char) <= 0xFF65
    return block and unicodedata.category(char)[0] == "P"


def is_parting(char: str) -> bool:
    """Stands instead of a mark and a space: what is on both sides of it is not one word."""
    return char in _PARTING


@lru_cache(maxsize=1 << 14)
def _extends(char: str) -> bool:
    return unicodedata.category(char) in {"Mn", "Mc", "Me", "Cf"} or char in _CLINGING_LETTERS


def clusters(text: str, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """The grapheme clusters of text[begin:end]: as much of UAX #29 as words need.

    Flags and joined emoji come in parts: no word begins inside a token at what is neither letter nor opening mark.
    """
    start = begin
    for at in range(begin + 1, end):
        if not _extends(text[at]) and text[at - 1] not in _STACKERS:
            yield start, at
            start = at
    if start < end:
        yield start, end


def pieces(text: str) -> list[tuple[int, int]]:
    """The smallest words of `text` as slices: all of it but the whitespace, in order.

    Whitespace separates, no-break spaces too. Inside a token each cluster of a continuous script is a piece, and so is
    each run between two of them; full-width marks part what stands beside them, too. Punctuation belongs to the piece
    before it, what opens to the piece after it, and what begins a token to its first piece.
    """
    return [piece for token in re.finditer(r"\S+", text) for piece in _token_pieces(text, *token.span())]


def _token_pieces(text: str, begin: int, end: int) -> Iterator[tuple[int, int]]:
    start = begin
    core: bool | None = None  # whether the letters of this piece are continuous; None while there are none
    opener: int | None = None  # where the punctuation that opens the next piece begins, if there is a next piece
    parted = False  # by a full-width mark, which is written instead of a mark and a space
    quotes = 0
    for at, _ in clusters(text, begin, end):
        char = text[at]
        quotes += char == '"'
        if is_letter(char):
            continuous = is_continuous(char)
            if core is not None and (core or continuous or parted):
                cut = at if opener is None else opener
                yield start, cut
                start = cut
            core, opener, parted = continuous, None, False
        elif is_opening(char) or (char == '"' and quotes % 2 == 1):
            opener = at if opener is None and core is not None else opener
        elif is_closing(char):
            opener = None
        parted = parted or is_parting(char)
    yield start, end
