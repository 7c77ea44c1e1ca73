"""A histogram as Prometheus has it: how many values were at most so large, for each combination of labels.

It is filled by one thread and read by any: a reader may see a value that a moment ago was not there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from math import inf

Labels = tuple[str, ...]


class Histogram:
    """Counts values by their labels and by the first of `bounds`, ascending, that they do not exceed.

    `known`: labels that are shown before they have a value.
    """

    def __init__(self, bounds: Sequence[float], known: Iterable[Labels] = ()) -> None:
        self.bounds = (*bounds, inf)
        self._counts: Counter[tuple[Labels, float]] = Counter()
        self._sums: dict[Labels, float] = dict.fromkeys(known, 0.0)

    @property
    def total(self) -> int:
        """How many values there are."""
        return self._counts.total()

    def observe(self, labels: Labels, value: float) -> None:
        bound = next(bound for bound in self.bounds if value <= bound)
        self._counts[labels, bound] += 1
        self._sums[labels] = self._sums.get(labels, 0.0) + value

    def add(self, other: Histogram) -> None:
        """Count what `other`, of the same bounds, has counted, too."""
        self._counts += other._counts
        for labels, total in other._sums.items():
            self._sums[labels] = self._sums.get(labels, 0.0) + total

    def series(self) -> Iterator[tuple[Labels, list[tuple[float, int]], float]]:
        """For each combination of labels: the bounds with the values up to each, and the sum of all values."""
        counts = dict(self._counts)  # atomic copies: the other thread may add keys meanwhile
        for labels, total in dict(self._sums).items():
            yield labels, list(zip(self.bounds, self._cumulative(counts, labels), strict=True)), total

    def _cumulative(self, counts: dict[tuple[Labels, float], int], labels: Labels) -> Iterator[int]:
        return accumulate(counts.get((labels, bound), 0) for bound in self.bounds)
