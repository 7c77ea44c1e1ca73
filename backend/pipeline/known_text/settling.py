"""Which units of a window are settled, and how much text the next one is given."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import isfinite

from backend.serving.protocols import AlignedUnit
from backend.thresholds import (
    CERTAINTY_UNITS,
    MAX_PACE_LETTERS_PER_S,
    MAX_WINDOW_S,
    MIN_CERTAINTY,
    MIN_PACE_LETTERS_PER_S,
    MIN_WINDOW_SHARE,
    SURE_CERTAINTY,
    UNSETTLED_UNITS,
)


def certain_count(units: Sequence[AlignedUnit], is_end: bool, min_share: float = 0.0) -> int:
    """How many of the first units are where they belong; 0 if that is not sure.

    `is_end`: the text ends with them. `min_share`: these are at least so many of them, as behind a jump.

    The certainty of a few units in a row counts, because a single one may be low. Another text agrees with a piece of
    the sound by chance: few units of a window, and those behind a jump, count only if they are as certain as units that
    are right.
    """
    sure = [0.0 if unit.outside or not isfinite(unit.certainty) else unit.certainty for unit in units]
    width = min(CERTAINTY_UNITS, len(sure))
    sums = [0.0, *accumulate(sure)]
    count = 0
    for first in range(len(sure) - width + 1):
        if sums[first + width] - sums[first] < MIN_CERTAINTY * width:
            break
        count = first + width
    must_be_sure = bool(min_share) or count < MIN_WINDOW_SHARE * len(sure)
    least = SURE_CERTAINTY if must_be_sure else 0.0
    # The mean of the last ones still has good ones before them.
    while count and (sure[count - 1] < MIN_CERTAINTY or sums[count] < least * count):
        count -= 1
    is_all = is_end and count == len(sure)
    too_few = min_share and count < max(min_share * len(sure), CERTAINTY_UNITS)
    if not count or too_few:
        return 0
    return count if is_all else max(count - UNSETTLED_UNITS, 1)


class Progress:
    """The pace of the text so far, in letters for a second of sound; at the beginning that of the whole."""

    def __init__(self, letters: int, sound_s: float) -> None:
        self._left, self._left_s = letters, sound_s
        self._letters, self._passed_s = 0, 0.0

    @property
    def pace(self) -> float:
        if self._passed_s >= MAX_WINDOW_S and self._letters:
            pace = self._letters / self._passed_s
        else:
            pace = self._left / max(self._left_s, 1.0)
        return min(max(pace, MIN_PACE_LETTERS_PER_S), MAX_PACE_LETTERS_PER_S)

    def passed(self, letters: int, sound_s: float) -> None:
        """So much text was settled in so many seconds of sound."""
        self._left, self._left_s = self._left - letters, self._left_s - sound_s
        if letters:
            self._letters, self._passed_s = self._letters + letters, self._passed_s + sound_s
