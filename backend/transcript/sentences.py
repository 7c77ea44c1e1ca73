"""Finds the ends of sentences and clauses, from one word and the beginning of the next.

- In doubt, a sentence does not end: a segment that is too long is cut again by time, length and gaps, while "Mr." alone
  on a subtitle is wrong.
- The language is not known here, and a recording may have several, so one table serves all languages.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

from backend.thresholds import MAX_ABBREVIATION_LETTERS
from backend.transcript.scripts import (
    is_closing,
    is_continuous,
    is_greek,
    is_hangul_syllable,
    is_letter,
    is_opening,
    is_spoken,
    is_thai,
)

TERMINAL = frozenset(".?!…。｡．？！‼⁇⁈⁉‽؟۔।॥։።።။។៕\u037e")  # U+037E is the Greek question mark
CLAUSE = frozenset(",;:،؛、､，；：—–―၊")
DASHES = frozenset("-—–―")

# Titles and connectives that never end a sentence, casefolded and without the last full stop. Abbreviations that are
# also an ordinary last word of some language are left out: "al" is Dutch, "sen" Turkish, "ud" Danish, "им" Russian.
_NEVER_END_BY_LANGUAGE = {
    "English": "mr mrs ms dr prof st rev gen rep gov capt lt col sgt hon messrs mt vs e.g i.e cf approx",
    "German": "hr fr hrn z z.b d.h u.a bzw ggf evtl sog vgl inkl zzgl geb",
    "French": "mme mmes mlle mgr",
    "Spanish and Portuguese": "sr sra srta sres dra exmo ee",
    "Italian": "sig sig.ra dott ing avv d.ssa",
    "Russian": "т.е т.к т.н ул гр см",
    "others": "np tzw dhr mevr bijv örn डॉ पी जे बी सी डी",  # the last are the letters P, J, B, C and D
}
# These end a list or a phrase about half of the time: the next word's first letter decides.
_END_BEFORE_CAPITAL_BY_LANGUAGE = {
    "English": "etc jr inc ltd co corp bros a.m p.m a.d b.c ph.d al",
    "German": "usw usf o.ä",
    "Russian": "т.д т.п др г гг руб",
    "others": "ecc atd itp itd vb ap",
}
# These are words of their own ("No."), unless a number follows ("No. 5").
_BEFORE_NUMBER_BY_LANGUAGE = {
    "English": "no nos vol fig figs p pp sec ch",
    "German": "nr nrn s abs kap bd ca",
    "others": "num núm n art cap op рис стр гл",
}
# German writes ordinals as "3." and the nouns after them with a capital: the words around them decide. Other languages
# with such ordinals (Danish, Finnish, Czech, Polish, Hungarian, Turkish …) continue in lower case and need no table.
_BEFORE_ORDINAL = frozenset("am im zum zur vom beim der die den dem jeder jeden jede jedes".split())
_AFTER_ORDINAL_BY_KIND = {
    "months": "januar jänner februar märz april mai juni juli august september oktober november dezember",
    "times": "jahrhundert jahrhunderts jahrtausend weltkrieg weltkriegs geburtstag",
    "places": "auflage klasse stock etage platz kapitel",
}


def _names(table: Mapping[str, str]) -> frozenset[str]:
    return frozenset(name for names in table.values() for name in names.split())


_NEVER_END = _names(_NEVER_END_BY_LANGUAGE)
_END_BEFORE_CAPITAL = _names(_END_BEFORE_CAPITAL_BY_LANGUAGE)
_BEFORE_NUMBER = _names(_BEFORE_NUMBER_BY_LANGUAGE)
_AFTER_ORDINAL = _names(_AFTER_ORDINAL_BY_KIND)


def ends_sentence(text: str, begin: int, end: int, following: int, *, is_first: bool = False) -> bool:
    """Whether a sentence ends with the word text[begin:end], when the next word begins at `following`.

    `is_first`: the word is the first of its sentence, where "2." is a list number and ends nothing.
    """
    last = _without_closing(text, begin, end)
    if last == begin:
        return False
    mark = text[last - 1]
    if mark == ";":
        return last - 2 >= begin and is_greek(text[last - 2])  # the Greek question mark
    if mark not in TERMINAL:
        return False
    if mark == "…" or text[begin:last].endswith(".."):
        # "Well... maybe" continues; in scripts without capitals it is not known
        return not (_continues(text, following) or unicodedata.category(_first_letter(text, following) or "-") == "Lo")
    if last < end:
        return not _continues(text, following)  # '"Really?" she said'
    return mark != "." or _full_stop_ends(text, begin, last - 1, following, is_first=is_first)


def _full_stop_ends(text: str, begin: int, stop: int, following: int, *, is_first: bool) -> bool:
    """Whether the full stop at `stop`, the last character of its word, ends a sentence."""
    if following == stop + 1 and not (is_continuous(text[stop - 1]) and is_continuous(text[following])):
        return False  # no space after it: a host name or a number beside Han or Thai
    while begin < stop and not is_spoken(text[begin]) and unicodedata.category(text[begin])[0] in "PZC":
        begin += 1  # not ° and №, which are pronounced
    bare = text[begin:stop].rstrip()
    name = bare.casefold()
    if name in _NEVER_END:
        return False
    if name in _END_BEFORE_CAPITAL:
        return not _continues(text, following)
    if name in _BEFORE_NUMBER:
        return not text[following].isdigit()
    if re.fullmatch(r"\d+|[IVXLC]{2,}", bare):
        # An ordinal ("3. Mai"), or the number of a list item. Otherwise a number ends a sentence like any word.
        is_ordinal = len(bare) <= 2 and (is_first or _word_before(text, begin) in _BEFORE_ORDINAL)
        return not (is_ordinal or _word_at(text, following) in _AFTER_ORDINAL or _continues(text, following))
    if is_thai(bare[-1]):
        return False  # Thai uses the full stop for abbreviations only
    if all(len(letter) == 1 for letter in bare.split(".")):
        return _initials_end(text, bare, following)
    is_short = bare[0].isupper() and len(bare) <= MAX_ABBREVIATION_LETTERS
    return not (is_short and _continues(text, following))  # "Dept. of"; "Good. then" is rarer


def _initials_end(text: str, bare: str, following: int) -> bool:
    """Whether a sentence ends with single letters: J. R. Tolkien, the U.S. Army, и т. п., د. أحمد, ए. आर. रहमान."""
    if bare.isupper():
        return bare in {"I", "Я"}  # pronouns; other capitals are initials, at the price of "Plan B. Then"
    if unicodedata.category(bare[0]) == "Lo":  # no capitals; a Chinese character or a Korean syllable is a word
        return is_continuous(bare[0]) or is_hangul_syllable(bare[0])
    return not _continues(text, following)


def ends_clause(text: str, begin: int, end: int) -> bool:
    """Whether the word text[begin:end] ends with a mark at which a long sentence may be cut."""
    last = _without_closing(text, begin, end)
    if last == begin:
        return False
    before = text[begin:last].rstrip("".join(DASHES))
    is_lone_dash = text[last - 1] in DASHES and (not before or before[-1].isspace())  # "so -", not "co-"
    return is_lone_dash or text[last - 1] in CLAUSE


def _without_closing(text: str, begin: int, end: int) -> int:
    # German and others close with “, which opens in English; at the end of a word it can only close.
    while end > begin and (is_closing(text[end - 1]) or is_opening(text[end - 1]) or _is_space_or_emoji(text[end - 1])):
        end -= 1
    return end


def _is_space_or_emoji(char: str) -> bool:
    """Whether it is skipped between a word's last mark and its end."""
    return char.isspace() or unicodedata.category(char) in {"So", "Sk"}


def _continues(text: str, following: int) -> bool:
    """Whether the word at `following` begins in lower case, so that the sentence continues."""
    return _first_letter(text, following).islower()


def _first_letter(text: str, begin: int) -> str:
    """The first letter after quotes, dashes and spaces; "" if there is none."""
    return next((char for char in text[begin : begin + 16] if is_letter(char)), "")


def _word_before(text: str, end: int) -> str:
    found = re.search(r"(?<!\bI )\b(\w+)\s+$", text[max(0, end - 16) : end])  # "I am 12." is English
    return found[1].casefold() if found else ""


def _word_at(text: str, begin: int) -> str:
    found = re.compile(r"\w+").match(text, begin)
    return found.group().casefold() if found else ""
