"""Paired measurements, and the ratio that they give.

A machine's speed changes from minute to minute. Two sides that are measured in alternation see the same machine, so
each pair gives a ratio, and the median over the pairs is the result.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

from devtools.server_process import ServerFailed

A = TypeVar("A")
K = TypeVar("K", bound=Hashable)

# "fewer" (seconds, bytes): theirs over ours; "more" (× real time): ours over theirs; 2 is twice as good in both.
# "share": ours over theirs, for limits.
Sense = Literal["fewer", "more", "share"]


class Failed(Exception):
    """One side could not be measured; the message goes into the table."""


class Spread(NamedTuple):
    """Of ratios."""

    median: float
    least: float
    most: float


class Goal(NamedTuple):
    """The median ratio that is wanted."""

    bound: Literal["≥", "≤"]
    ratio: float

    def is_met(self, median: float) -> bool:
        return median >= self.ratio if self.bound == "≥" else median <= self.ratio


@dataclass(frozen=True)
class Row:
    """One line of the table. `pairs`: ours and theirs, in `unit`. `failure`: why there are none.

    `note`: what a reader must know about the figure. `mismatches`: texts that differ from the expected one.
    """

    measure: str
    ours: str
    theirs: str
    unit: str = ""
    sense: Sense = "fewer"
    pairs: tuple[tuple[float, float], ...] = ()
    goal: Goal | None = None
    note: str = ""
    failure: str = ""
    mismatches: int = 0

    @property
    def spread(self) -> Spread | None:
        """None without a pair that can be divided."""
        ratios = [ratio for pair in self.pairs if math.isfinite(ratio := _ratio(*pair, self.sense))]
        return Spread(statistics.median(ratios), min(ratios), max(ratios)) if ratios else None

    @property
    def medians(self) -> tuple[float, float] | None:
        """Of each side by itself."""
        if not self.pairs:
            return None
        ours, theirs = zip(*self.pairs, strict=True)
        return statistics.median(ours), statistics.median(theirs)

    @property
    def is_good(self) -> bool | None:
        """Whether the goal is met; None without a goal or a ratio."""
        return None if self.goal is None or self.spread is None else self.goal.is_met(self.spread.median)


def _ratio(ours: float, theirs: float, sense: Sense) -> float:
    above, below = (theirs, ours) if sense == "fewer" else (ours, theirs)
    return above / below if below else math.nan


def alternate(runs: int, ours: Callable[[], A], theirs: Callable[[], A]) -> list[tuple[A, A]]:
    """`runs` pairs: ours, theirs, theirs, ours, ours, … so that neither always follows the other."""
    return [(found["ours"], found["theirs"]) for found in rounds(runs, {"ours": ours, "theirs": theirs})]


def rounds(runs: int, sides: Mapping[K, Callable[[], A]]) -> list[dict[K, A]]:
    """Each side once a round; the order is reversed in every other round."""
    found = []
    for run in range(runs):
        order = list(sides.items())
        found.append({side: measure() for side, measure in (order[::-1] if run % 2 else order)})
    return found


def pairs_of(found: Sequence[Mapping[K, A]], ours: K, theirs: K) -> tuple[tuple[A, A], ...]:
    """Two sides of all rounds."""
    return tuple((each[ours], each[theirs]) for each in found)


def in_unit(pairs: Sequence[tuple[A, A]], value: Callable[[A], float]) -> tuple[tuple[float, float], ...]:
    """One figure of each side of all pairs."""
    return tuple((value(ours), value(theirs)) for ours, theirs in pairs)


def percentile(values: Sequence[float], percent: float) -> float:
    """Nearest rank. Raises ValueError on nothing."""
    if not values:
        raise ValueError("no values")
    return sorted(values)[max(math.ceil(len(values) * percent / 100), 1) - 1]


def rows_or_failure(measure: str, ours: str, theirs: str, rows: Iterator[Row]) -> Iterator[Row]:
    """The rows, and where a side fails one more that says why there are no others."""
    try:
        yield from rows
    except (Failed, ServerFailed) as failure:
        yield Row(measure, ours, theirs, failure=str(failure))
