"""Text normalisation before words and characters are counted.

English goes through Whisper's normaliser, as on the public leaderboards: contractions, spellings and numbers are made
alike ("one two" becomes 12, so a row of digits is one word). Other languages lose case, punctuation and symbols. Where
a script has no spaces, a word is a character.
"""

from __future__ import annotations

import functools
import unicodedata

from whisper_normalizer.english import EnglishTextNormalizer

UNSPACED = frozenset({"zh", "yue", "ja", "th"})
_english = functools.cache(EnglishTextNormalizer)


def plain(text: str) -> str:
    """NFKC, casefolded; only letters, marks and numbers, with single spaces between them.

    Whisper's normaliser for other languages removes marks, without which Hindi and Thai are other words.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join("".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in folded).split())


def key(word: str) -> str:
    """One word, to be compared with another, without spaces; empty for punctuation alone."""
    return plain(word).replace(" ", "")


def tokens(text: str, language: str) -> list[str]:
    """The words of a text as they are written, with their punctuation; characters where the script has no spaces."""
    return [c for c in text if not c.isspace()] if language in UNSPACED else text.split()


def words(text: str, language: str) -> list[str]:
    """The normalised words that WER counts."""
    if language in UNSPACED:
        return list(key(text))
    return (_english()(text) if language == "en" else plain(text)).split()
