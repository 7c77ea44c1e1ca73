"""How much speech a text stands for, in letters of an alphabet: comparable across languages and tokenizers.

Tokens are not: at its normal pace English has 4 of Qwen's tokens a second and Greek 18, and the demo models' tokenizer
has one for each word. Letters are spoken at about the same pace everywhere, 13 to 20 a second.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from backend.transcript.scripts import is_han, is_hangul_syllable, is_kana

# A Chinese character or a Korean syllable takes as long as three letters of an alphabet, and so does a digit, which is
# read out as a word; a kana, a Japanese mora, takes as long as two. Chosen by the paces in test_speech_rate.py.
_SYLLABLE_LETTERS = 3
_MORA_LETTERS = 2


def spoken_letters(text: str) -> int:
    """The letters of an alphabet that take as long to say as `text`; 0 for punctuation alone."""
    return sum(map(_letters, unicodedata.normalize("NFC", text)))


@lru_cache(maxsize=1 << 14)
def _letters(char: str) -> int:
    """Combining marks that have no composed form count: they are the vowels of Hindi and Thai."""
    category = unicodedata.category(char)
    if category[0] == "N" or is_han(char) or is_hangul_syllable(char):
        return _SYLLABLE_LETTERS
    if is_kana(char):
        return _MORA_LETTERS
    return int(category[0] == "L" or category in ("Mn", "Mc"))
