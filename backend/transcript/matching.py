"""Finds the aligner's bare units in the transcript they were made from.

The aligner keeps letters and digits only, so both sides are compared as keys: NFKD, casefolded, all else dropped.
Rules: a cursor walks forward and never back; where unit and text disagree, the smallest detour wins (units skipped plus
pieces of text skipped), so neither a foreign unit nor a missing one derails those after it.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from backend.transcript.scripts import is_letter, pieces

REACH = 16  # the longest detour that is tried; (REACH + 1)² / 2 comparisons for a unit that fits nowhere
UNSURE = 1.5  # a match of part of a piece is taken only if no clean match is at most one step away
CONFIRMED_FROM = 3  # a detour this long must be confirmed by the unit after: "the" is within reach of everything
SIMILAR = 0.6  # of a piece's key must be in a unit that lacks some of its letters
EVIDENCE = 8  # letters, from three units or more, that must stand together to jump beyond REACH


@lru_cache(maxsize=1 << 14)
def _fold(char: str) -> str:
    """What is left of a character on either side: base letters, casefolded. é and e + accent agree, as do ² and 2.

    Nothing of a sign that is written with letters (№, ℡, ㈜): the aligner leaves it out.
    """
    if not is_letter(char):
        return ""
    bare = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", char).casefold())
    return "".join(letter for letter in bare if is_letter(letter))


def fold(text: str) -> str:
    return "".join(map(_fold, text))


@dataclass(frozen=True)
class Track:
    """A transcript as the cursor sees it: `key`, and for each character of it the number of the piece that owns it."""

    key: str
    owner: Sequence[int]
    starts: Sequence[int]  # where in `key` the pieces begin, without the pieces that have no letter

    def ends_piece(self, at: int) -> bool:
        return at == len(self.key) or self.owner[at] != self.owner[at - 1]

    def piece_end(self, at: int) -> int:
        following = bisect_left(self.starts, at + 1)
        return self.starts[following] if following < len(self.starts) else len(self.key)


def lay(text: str) -> tuple[list[tuple[int, int]], Track]:
    """The pieces of `text` (see scripts.pieces) and the track over them."""
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
    return found, Track("".join(letters), owner, starts)


def find(track: Track, units: Sequence[str]) -> Iterator[tuple[int, int, int]]:
    """For each unit that is found, in order: its number, and the slice of track.key it covers."""
    numbers = [number for number, unit in enumerate(units) if fold(unit)]
    keys = [fold(units[number]) for number in numbers]
    cursor = unit = 0
    while unit < len(keys) and cursor < len(track.key):
        match = _nearest(track, keys, unit, cursor) or _distant(track, keys, unit, cursor)
        if match is None:
            unit += 1
            continue
        unit, begin, cursor = match
        yield numbers[unit], begin, cursor
        unit += 1


def _nearest(track: Track, keys: Sequence[str], unit: int, cursor: int) -> tuple[int, int, int] | None:
    """The match with the smallest detour within REACH: number of the unit, begin and end in the key."""
    first = bisect_left(track.starts, cursor)
    places = [*track.starts[first : first + REACH + 1]]
    if not places or places[0] != cursor:
        places.insert(0, cursor)  # inside a piece of which an earlier unit was a part
    best, least = None, float("inf")
    for detour in range(REACH + 1):
        if least <= detour:
            break
        for skipped in range(min(detour, len(keys) - 1 - unit) + 1):
            if detour - skipped >= len(places):
                continue
            begin, number = places[detour - skipped], unit + skipped
            end, doubt = _fits(track, keys, number, begin)
            if end == begin or (detour >= CONFIRMED_FROM and not _is_confirmed(track, keys, number, end)):
                continue
            if doubt == 0:
                return number, begin, end
            if detour + doubt < least:
                best, least = (number, begin, end), detour + doubt
    return best


def _fits(track: Track, keys: Sequence[str], unit: int, begin: int) -> tuple[int, float]:
    """Where the unit would end if it began at `begin` (there, if it does not fit), and how doubtful that is."""
    key = keys[unit]
    if track.key.startswith(key, begin):
        end = begin + len(key)
        continued = unit + 1 < len(keys) and track.key.startswith(keys[unit + 1], end)
        return end, 0.0 if continued or track.ends_piece(end) else UNSURE
    if track.key[begin] != key[0]:
        return begin, 0.0
    end = track.piece_end(begin)
    if SIMILAR * (end - begin) <= len(key) < end - begin:
        letters = iter(track.key[begin:end])
        if all(letter in letters for letter in key):
            return end, UNSURE
    return begin, 0.0


def _is_confirmed(track: Track, keys: Sequence[str], unit: int, end: int) -> bool:
    return unit + 1 == len(keys) or end == len(track.key) or track.key.startswith(keys[unit + 1], end)


def _distant(track: Track, keys: Sequence[str], unit: int, cursor: int) -> tuple[int, int, int] | None:
    """The unit further ahead, where those after it follow it too: the aligner lost a long stretch."""
    evidence, last = "", unit
    while last < len(keys) and (len(evidence) < EVIDENCE or last - unit < 3):
        evidence += keys[last]
        last += 1
    if len(evidence) < EVIDENCE or last - unit < 3:
        return None
    begin = track.key.find(evidence, cursor)
    if begin < 0 or not track.ends_piece(begin):
        return None
    return unit, begin, begin + len(keys[unit])
