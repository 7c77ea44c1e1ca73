"""Finds the ends of sentences and clauses, from one word and the beginning of the next.

- In doubt, a sentence does not end: a segment that is too long is cut again by time, length and gaps, while "Mr." alone
  on a subtitle is wrong.
- The language decides where it is known: "No. 5" is a number in English, and "No." an answer in Spanish.
"""

from __future__ import annotations

import re
import unicodedata

from backend.thresholds import MAX_ABBREVIATION_LETTERS
from backend.transcript.abbreviations import (
    AFTER_ORDINAL,
    BEFORE_ORDINAL,
    DATE_WORDS,
    Abbreviations,
    Kind,
    abbreviations_of,
)
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

_PRONOUNS = frozenset("IЯ")
_CLOCK = frozenset({"a.m", "p.m"})
# After an initial these belong to the name: Ursula K. Le Guin, Walter J. De Vries.
_NAME_PARTICLES = frozenset("le la lo el los las les de del da do dos das di al".split())
_NUMBER = re.compile(r"[^\w\s]{0,2}(?:\d|[IVXLC]{2,}\b|[VX]\b)")
_WORD = re.compile(r"\w+")
_FIRST_WORD = re.compile(r"\W{0,4}(\w+)(['’]?)")
_NUMERAL = re.compile(r"\d+|[IVXLC]{2,}")
_AFTER_NUMBER = re.compile(r"(?:\d(?:-?\w{1,2})?|\b[IVXLC]+|[½¼¾])\s*$")
# Up to four short words that end with a full stop, as the parts of "i. d. R." and "av. J.-C." do.
_PARTS_BEFORE = re.compile(r"(?:(?<!\w)-?[^\W\d_]{1,3}\.\s?){1,4}$")
_PARTS_BEHIND = re.compile(r"((?:[^\W\d_]{1,3}\.-?)*[^\W\d_]{1,3})\.")
_MOST_PART_CHARS = 5
_ENGLISH_I = re.compile(r"\W{0,3}I(?=['’\s,…]|\.\.|$)")
_SAID = re.compile(r"I (?:said|say|asked|ask|shouted|cried|whispered|thought|replied|answered|yelled|told)\b")
# What goes on with a sentence behind a quotation: Japanese particles and the copula, unless they begin a word that
# begins sentences (でも, とても, のんびり); a Chinese speaker with a verb of saying; a Korean particle behind a space.
_BEHIND_QUOTATION = re.compile(
    "|".join(
        (
            r"って|など|なんて(?=言|い[うっわ]|こと|思|考|聞|書|、)|とか|を|だけ(?!ど)|まで|しか(?!し)|さえ|ばかり|みたい|よう[なに]",
            r"と(?!ころ|て[もき]|にかく|きどき|もだち|りあえず|なり|ある|うとう|うぜん|つぜん|いうわけ|はいえ|もかく)",
            r"の(?!ち|ど|り|こ[るりっ]|んびり|ん[きび])|に(?:は|も|つい|たい|よ[るりっ]|[^\u3040-\u309f])|だ(?:った|[、。])|です(?!か?[らが])|でし[たょ]",
            r"[はがもでへや](?:、|[^\u3040-\u309f\s])",
            r"(?:[他她它我你您咱]们?|佢哋?)\w{0,2}?(?:[说說问問喊]|[答叫笑]道|回答|[話講])|的(?![确確士])|嘅",
            r"[\u4e00-\u9fff]{2,4}?(?<![听聽小传傳据據])[说說问問喊答]道?[。，：]",
            r"이?라[고며는니]|이?란|하[고며는]|\w{1,8}[은는이가] (?:말[했하]|물었|대답|외[쳤치])",
        )
    )
)


def ends_sentence(
    text: str, begin: int, end: int, following: int, language: str = "", *, is_first: bool = False
) -> bool:
    """Whether a sentence ends with the word text[begin:end], when the next word begins at `following`.

    `language`: the code of the text's language, "" where it is not known. `is_first`: the word is the first of its
    sentence, where "2." is a list number and ends nothing.
    """
    if text[end - 1].isalnum():
        return False  # most words
    last = _without_closing(text, begin, end)
    if last == begin:
        return False
    mark = text[last - 1]
    if mark == ";":
        return last - 2 >= begin and is_greek(text[last - 2])  # the Greek question mark
    if mark not in TERMINAL:
        return False
    if mark == "…" or "".join(text[begin:last].split()).endswith(".."):
        return _ellipsis_ends(text, following, language)
    if last < end:  # '"Really?" she said'
        return not (
            _continues(text, following) or _BEHIND_QUOTATION.match(text, following) or _SAID.match(text, following)
        )
    if mark != ".":
        return not (text[following] in DASHES and _continues(text, following))  # "— ¿Qué? —dijo él"
    return _full_stop_ends(text, begin, last - 1, following, language, is_first=is_first)


def _ellipsis_ends(text: str, following: int, language: str) -> bool:
    """Whether an ellipsis ends a sentence: "Well... maybe" goes on.

    Nothing is known in a script without capitals, before the English I, and before a German noun.
    """
    if _continues(text, following) or unicodedata.category(_first_letter(text, following) or "-") == "Lo":
        return False
    if language == "de":
        return _starts_sentence(text, following, abbreviations_of(language))
    return language == "it" or not _ENGLISH_I.match(text, following)  # "i" is an article in Italian


def _full_stop_ends(text: str, begin: int, stop: int, following: int, language: str, *, is_first: bool) -> bool:
    """Whether the full stop at `stop`, the last character of its word, ends a sentence."""
    if following == stop + 1 and not (is_continuous(text[stop - 1]) and is_continuous(text[following])):
        return False  # no space after it: a host name or a number beside Han or Thai
    while begin < stop and not is_spoken(text[begin]) and unicodedata.category(text[begin])[0] in "PZC":
        begin += 1  # not ° and №, which are pronounced
    bare = text[begin:stop].rstrip()
    if not bare:
        return True  # "(."
    known = abbreviations_of(language)
    if _NUMERAL.fullmatch(bare):
        # An ordinal ("3. Mai"), or the number of a list item. Otherwise a number ends a sentence like any word.
        return not (
            (len(bare) <= 2 and is_first)
            or _continues(text, following)
            or (known.has_ordinals and _is_ordinal(text, begin, bare, following, known))
        )
    kind = _kind(text, begin, bare, following, known)
    if kind is not None:
        return _ends_after(kind, bare, text, following, known)
    if is_thai(bare[-1]):
        return False  # Thai uses the full stop for abbreviations only
    if all(len(letter.removeprefix("-")) == 1 for letter in bare.split(".")):
        return _initials_end(text, bare, following, known)
    is_short = bare[0].isupper() and len(bare) <= MAX_ABBREVIATION_LETTERS
    return not (is_short and _continues(text, following))  # "Dept. of"; "Good. then" is rarer


def _is_ordinal(text: str, begin: int, bare: str, following: int, known: Abbreviations) -> bool:
    """Whether it is a German ordinal: "am 3. Mai", "der 2. Mann", but not "am 3. Er kam"."""
    word = _word_at(text, following).casefold()
    if word in AFTER_ORDINAL or (f"{word}." in AFTER_ORDINAL and text.startswith(".", following + len(word))):
        return True
    is_behind_article = len(bare) <= 2 and _word_before(text, begin) in BEFORE_ORDINAL
    return is_behind_article and not _starts_sentence(text, following, known)


def _kind(text: str, begin: int, bare: str, following: int, known: Abbreviations) -> Kind | None:
    """The kind of abbreviation that `bare` is, alone or with the short words around it; None if it is none."""
    name = bare
    if len(bare) <= _MOST_PART_CHARS:
        before = _PARTS_BEFORE.search(text, max(0, begin - 16), begin)
        behind = _PARTS_BEHIND.match(text, following)
        name = "".join(before.group().split()) + bare if before else bare
        while True:
            if behind and f"{name}.{behind[1]}".casefold() in known.parts:
                return Kind.ALWAYS  # the "z." of "z. B."
            if name == bare:
                break
            kind = known.kind_of(name)
            if kind is not None:
                return kind
            name = name.partition(".")[2]
    if len(bare) == 1 and bare.isupper():
        return None  # an initial
    if bare.casefold() in known.units and _AFTER_NUMBER.search(text, max(0, begin - 8), begin):
        return Kind.NUMBER_OR_SMALL
    return known.kind_of("Str" if known.has_ordinals and bare.endswith("str") else bare)  # Goethestr.


def _ends_after(kind: Kind, bare: str, text: str, following: int, known: Abbreviations) -> bool:
    """Whether a sentence ends after an abbreviation of this kind."""
    if kind is Kind.ALWAYS:
        return False
    if kind is Kind.NAME:
        return _starts_sentence(text, following, known)
    is_number = _NUMBER.match(text, following) is not None
    if kind is Kind.NUMBER:
        return not is_number
    is_date = _word_at(text, following).casefold() in DATE_WORDS
    if kind is Kind.SMALL:
        return not (_continues(text, following) or (is_date and bare.casefold() in _CLOCK))
    return not (_continues(text, following) or is_number or is_date)


def _initials_end(text: str, bare: str, following: int, known: Abbreviations) -> bool:
    """Whether a sentence ends with single letters: J. R. Tolkien, the U.S. Army, и т. п., د. أحمد, ए. आर. रहमान."""
    if bare in _PRONOUNS:
        return text[following + 1 : following + 2] != "."  # I. M. Pei
    if bare.isupper():  # initials, at the price of "Plan B. John came"
        goes_on = bare[0].isdigit() or _word_at(text, following).casefold() in _NAME_PARTICLES  # section 1.A.
        return not goes_on and _starts_sentence(text, following, known)
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


def _starts_sentence(text: str, following: int, known: Abbreviations) -> bool:
    """Whether the word at `following` has a capital and is one that often begins a sentence, or ¿ or ¡ opens it."""
    if text[following] in "¿¡":
        return True
    found = _FIRST_WORD.match(text, following)
    if not found or found[1] != found[1].capitalize() or found[1].islower():
        return False
    word, behind = found[1].casefold(), text[found.end() : found.end() + 1]
    if behind == "-" or (behind == "." and len(word) == 1):
        return False  # All-Star; an initial
    return (found[2] != "" and f"{word}'" in known.starters) or (
        word in known.starters and (not found[2] or len(word) > 1)
    )


def _word_before(text: str, end: int) -> str:
    found = re.search(r"(?<!\bI )\b(\w+)\s+$", text[max(0, end - 16) : end])  # "I am 12." is English
    return found[1].casefold() if found else ""


def _word_at(text: str, begin: int) -> str:
    found = _WORD.match(text, begin)
    return found.group() if found else ""
