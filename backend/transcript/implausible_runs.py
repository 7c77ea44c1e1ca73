"""Words that an aligner has piled up: where it lost its place, a whole phrase shares a moment.

A crowd is five words or more of which each five lie closer together than anybody speaks.
"""

from __future__ import annotations

from collections.abc import Sequence

from backend.transcript.timing import Times

LEAST = 5  # words
# What five of them take at least. The aligner's path gives a word one class of 80 ms where it has nothing for it, so
# five lost words fill 0.4 s; the fastest five Chinese syllables, or English function words, take more than 0.5 s.
SHORTEST_S = 0.45


def find_implausible_runs(times: Sequence[Times], shortest_s: float = SHORTEST_S) -> list[tuple[int, int]]:
    """Runs among words with these (start, end) in seconds, as [first, after) of their numbers, in order."""
    found: list[tuple[int, int]] = []
    for first in range(len(times) - LEAST + 1):
        after = first + LEAST
        if not times[after - 1][1] - times[first][0] < shortest_s:  # nan is no crowd
            continue
        if found and first <= found[-1][1]:
            found[-1] = found[-1][0], after
        else:
            found.append((first, after))
    return found
