"""Finds the aligner's bare units in the transcript that they were made from.

The aligner keeps letters and digits only, so both sides are compared as folded keys: NFKD, casefolded, without
punctuation. A cursor moves forward only. Where units and text disagree, the match with the smallest detour is taken
(units skipped plus pieces of text skipped), so that neither a foreign unit nor a missing one shifts those after it.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from backend.thresholds import (
    MAX_DETOUR,
    MIN_ANCHOR_LETTERS,
    MIN_ANCHOR_UNITS,
    MIN_CONFIRMED_DETOUR,
    MIN_SIMILARITY,
    PARTIAL_MATCH_COST,
)
from backend.transcript.scripts import is_letter, pieces


@lru_cache(maxsize=1 << 14)
def _fold(char: str) -> str:
    """The base letters of a character, casefolded: é and e + accent agree, as do ² and 2.

    "" for a sign that is written with letters (№, ℡, ㈜): the aligner leaves it out.
    """
    if not is_letter(char):
        return ""
    base = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", char).casefold())
    return "".join(letter for letter in base if is_letter(letter))


def fold(text: str) -> str:
    """The letters and digits of `text` in a form that compares equal across case, accents and compatibility forms."""
    return "".join(map(_fold, text))


@dataclass(frozen=True)
class FoldedText:
    """A transcript as a folded `key`. `owner`: for each character of the key, the number of the piece it is from."""

    key: str
    owner: Sequence[int]
    starts: Sequence[int]  # offsets in `key` at which pieces begin, without the pieces that have no letter

    def ends_piece(self, at: int) -> bool:
        return at == len(self.key) or self.owner[at] != self.owner[at - 1]

    def piece_end(self, at: int) -> int:
        following = bisect_left(self.starts, at + 1)
        return self.starts[following] if following < len(self.starts) else len(self.key)


def fold_pieces(text: str) -> tuple[list[tuple[int, int]], FoldedText]:
    """The pieces of `text` (see scripts.pieces), and their folded text."""
    found = pieces(text)
    letters: list[str] = []
    owner: list[int] = []
    starts: list[int] = []
    for number, (begin, end) in enumerate(found):
        key = fold(text[begin:end])
        if key:
            starts.append(len(owner))
            letters.append(key)
            owner.extend([number] * len(key))
    return found, FoldedText("".join(letters), owner, starts)


def match_units(folded: FoldedText, units: Sequence[str]) -> Iterator[tuple[int, int, int]]:
    """For each unit that is found, in order: its number, and the slice [begin, end) of the key that it covers."""
    numbers = [number for number, unit in enumerate(units) if fold(unit)]
    keys = [fold(units[number]) for number in numbers]
    cursor = unit = 0
    while unit < len(keys) and cursor < len(folded.key):
        match = _nearest(folded, keys, unit, cursor) or _anchored(folded, keys, unit, cursor)
        if match is None:
            unit += 1
            continue
        unit, begin, cursor = match
        yield numbers[unit], begin, cursor
        unit += 1


def _nearest(folded: FoldedText, keys: Sequence[str], unit: int, cursor: int) -> tuple[int, int, int] | None:
    """The match with the smallest detour, at most MAX_DETOUR: number of the unit, begin and end in the key."""
    first = bisect_left(folded.starts, cursor)
    places = [*folded.starts[first : first + MAX_DETOUR + 1]]
    if not places or places[0] != cursor:
        places.insert(0, cursor)  # inside a piece, after an earlier unit that was a part of it
    best, lowest_cost = None, float("inf")
    for detour in range(MAX_DETOUR + 1):
        if lowest_cost <= detour:
            break
        for skipped in range(min(detour, len(keys) - 1 - unit) + 1):
            if detour - skipped >= len(places):
                continue
            begin, number = places[detour - skipped], unit + skipped
            end, cost = _match_at(folded, keys, number, begin)
            if end == begin or (detour >= MIN_CONFIRMED_DETOUR and not _is_confirmed(folded, keys, number, end)):
                continue
            if cost == 0:
                return number, begin, end
            if detour + cost < lowest_cost:
                best, lowest_cost = (number, begin, end), detour + cost
    return best


def _match_at(folded: FoldedText, keys: Sequence[str], unit: int, begin: int) -> tuple[int, float]:
    """(end, cost) of the unit's match at `begin`; end == begin if it does not match there."""
    key = keys[unit]
    if folded.key.startswith(key, begin):
        end = begin + len(key)
        is_continued = unit + 1 < len(keys) and folded.key.startswith(keys[unit + 1], end)
        return end, 0.0 if is_continued or folded.ends_piece(end) else PARTIAL_MATCH_COST
    if folded.key[begin] != key[0]:
        return begin, 0.0
    end = folded.piece_end(begin)
    if MIN_SIMILARITY * (end - begin) <= len(key) < end - begin:
        letters = iter(folded.key[begin:end])
        if all(letter in letters for letter in key):  # the key is a subsequence: the unit lacks some letters
            return end, PARTIAL_MATCH_COST
    return begin, 0.0


def _is_confirmed(folded: FoldedText, keys: Sequence[str], unit: int, end: int) -> bool:
    """Whether the next unit follows at once, or there is no more text or no more unit."""
    return unit + 1 == len(keys) or end == len(folded.key) or folded.key.startswith(keys[unit + 1], end)


def _anchored(folded: FoldedText, keys: Sequence[str], unit: int, cursor: int) -> tuple[int, int, int] | None:
    """The unit at any distance ahead where the units after it follow, too: the aligner has lost a long stretch."""
    anchor, last = "", unit
    while last < len(keys) and (len(anchor) < MIN_ANCHOR_LETTERS or last - unit < MIN_ANCHOR_UNITS):
        anchor += keys[last]
        last += 1
    if len(anchor) < MIN_ANCHOR_LETTERS or last - unit < MIN_ANCHOR_UNITS:
        return None
    begin = folded.key.find(anchor, cursor)
    if begin < 0 or not folded.ends_piece(begin):
        return None
    return unit, begin, begin + len(keys[unit])
