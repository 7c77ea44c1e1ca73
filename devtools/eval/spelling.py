"""What counts as the same text: spellings brought to one form before they are compared.

English goes through Whisper's normaliser, as the public leaderboards do it: contractions, spellings and numbers are
made alike ("one two" becomes 12, so a row of digits is one word). Other languages lose case, punctuation and symbols.
Where a script has no spaces, a word is a character.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence

from whisper_normalizer.english import EnglishTextNormalizer  # type: ignore[import-untyped]

UNSPACED = frozenset({"zh", "yue", "ja", "th"})


def plain(text: str) -> str:
    """NFKC, casefolded; what is no letter, mark or number becomes a space; spaces collapse."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join("".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in folded).split())


def key(word: str) -> str:
    """One word for comparing it with another, without spaces; empty for punctuation alone."""
    return plain(word).replace(" ", "")


def tokens(text: str, language: str) -> list[str]:
    """The words of a text as they are written, with their punctuation; characters where the script has no spaces."""
    return [c for c in text if not c.isspace()] if language in UNSPACED else text.split()


def words(text: str, language: str) -> list[str]:
    """The words that are counted as right or wrong."""
    if language in UNSPACED:
        return list(plain(text).replace(" ", ""))
    return (_english()(text) if language == "en" else plain(text)).split()


def characters(counted: Sequence[str], language: str) -> list[str]:
    """The characters that are counted; spaces between words are characters too, as in everybody's CER."""
    return list(("" if language in UNSPACED else "␣").join(counted))


@functools.cache
def _english() -> EnglishTextNormalizer:
    return EnglishTextNormalizer()
