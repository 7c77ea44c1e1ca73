"""Finds runs of words that an aligner has placed implausibly close together.

Where the aligner loses its place, a whole phrase shares a moment. An implausible run is MIN_RUN_WORDS words or more, of
which each MIN_RUN_WORDS in a row take less time than anybody needs to speak them.
"""

from __future__ import annotations

from collections.abc import Sequence

from backend.thresholds import MIN_RUN_S, MIN_RUN_WORDS
from backend.transcript.timing import Times


def find_implausible_runs(times: Sequence[Times], min_run_s: float = MIN_RUN_S) -> list[tuple[int, int]]:
    """The runs among words with these (start, end) in seconds: disjoint index ranges [first, after), in order."""
    found: list[tuple[int, int]] = []
    for first in range(len(times) - MIN_RUN_WORDS + 1):
        after = first + MIN_RUN_WORDS
        if not times[after - 1][1] - times[first][0] < min_run_s:  # NaN makes no run
            continue
        if found and first <= found[-1][1]:
            found[-1] = found[-1][0], after
        else:
            found.append((first, after))
    return found
