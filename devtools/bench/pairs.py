"""Figures of two sides, measured in alternation, and what may be said about them.

A machine is not the same from minute to minute: its neighbours, its heat, its memory. Two sides that are measured in
turns see the same machine, so each pair gives a ratio, and the median over the pairs is the figure.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeVar

A = TypeVar("A")
K = TypeVar("K", bound=Hashable)

# Seconds and bytes are better when fewer, × real time when more: 2 is twice as good. A share is ours over theirs.
Sense = Literal["fewer", "more", "share"]


class Spread(NamedTuple):
    """The median of some ratios, and how far they lie apart."""

    median: float
    least: float
    most: float


class Goal(NamedTuple):
    """What issue and operator want of the median ratio."""

    bound: Literal["≥", "≤"]
    ratio: float

    def is_met(self, median: float) -> bool:
        return median >= self.ratio if self.bound == "≥" else median <= self.ratio


@dataclass(frozen=True)
class Row:
    """One line of the table: the same figure of ours and of what it is held against, pair by pair, in `unit`.

    `failure` says why there is no figure. `note`: what a reader has to know about it.
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
    mismatches: int = field(default=0)

    @property
    def spread(self) -> Spread | None:
        """Of the ratios; None without a pair that can be divided."""
        ratios = [ratio for pair in self.pairs if math.isfinite(ratio := _ratio(*pair, self.sense))]
        return Spread(statistics.median(ratios), min(ratios), max(ratios)) if ratios else None

    @property
    def medians(self) -> tuple[float, float] | None:
        """Ours and theirs, each by itself."""
        if not self.pairs:
            return None
        ours, theirs = zip(*self.pairs, strict=True)
        return statistics.median(ours), statistics.median(theirs)

    @property
    def is_good(self) -> bool | None:
        """Whether the goal is met; None without a goal or a figure."""
        return None if self.goal is None or self.spread is None else self.goal.is_met(self.spread.median)


def _ratio(ours: float, theirs: float, sense: Sense) -> float:
    above, below = (theirs, ours) if sense == "fewer" else (ours, theirs)
    return above / below if below else math.nan


def alternate(runs: int, ours: Callable[[], A], theirs: Callable[[], A]) -> list[tuple[A, A]]:
    """`runs` pairs: ours, theirs, theirs, ours, ours, … so that neither always follows the other."""
    return [(found["ours"], found["theirs"]) for found in rounds(runs, {"ours": ours, "theirs": theirs})]


def rounds(runs: int, sides: Mapping[K, Callable[[], A]]) -> list[dict[K, A]]:
    """Each side once in every round; every other round the other way round."""
    found = []
    for run in range(runs):
        turns = list(sides.items())
        found.append({side: measure() for side, measure in (turns[::-1] if run % 2 else turns)})
    return found


def pairs_of(found: Sequence[Mapping[K, A]], ours: K, theirs: K) -> tuple[tuple[A, A], ...]:
    """Two sides of all rounds."""
    return tuple((each[ours], each[theirs]) for each in found)


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that so many per cent do not exceed (nearest rank). Raises ValueError on nothing."""
    if not values:
        raise ValueError("no values")
    return sorted(values)[max(math.ceil(len(values) * percent / 100), 1) - 1]
