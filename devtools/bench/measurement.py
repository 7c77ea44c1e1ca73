"""Paired measurements, and the ratio that they give.

A machine's speed changes from minute to minute. Two sides that are measured in alternation see the same machine, so
each pair gives a ratio, and the median over the pairs is the result.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

from devtools.machine_load import Load

A = TypeVar("A")
K = TypeVar("K", bound=Hashable)
Pairs = tuple[tuple[float, float], ...]  # ours and theirs

# "fewer" (seconds, bytes): theirs over ours; "more" (× real time): ours over theirs; 2 is twice as good in both.
# "share": ours over theirs, for limits.
Sense = Literal["fewer", "more", "share"]
_BEGAN_S = time.monotonic()


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
    """One line of the table, its `pairs` in `unit`. `failure`: why there are none. `mismatches`: wrong texts.

    `load`: what else the machine did from the start of the measure until this row.
    """

    measure: str
    ours: str
    theirs: str
    unit: str = ""
    sense: Sense = "fewer"
    pairs: Pairs = ()
    goal: Goal | None = None
    note: str = ""
    failure: str = ""
    mismatches: int = 0
    load: Load | None = None

    @property
    def spread(self) -> Spread | None:
        """None without a pair that can be divided."""
        sides = self.pairs if self.sense == "fewer" else [(theirs, ours) for ours, theirs in self.pairs]
        ratios = [above / below for below, above in sides if below]
        return Spread(statistics.median(ratios), min(ratios), max(ratios)) if ratios else None

    @property
    def medians(self) -> tuple[float, float] | None:
        """Of each side by itself."""
        if not self.pairs:
            return None
        ours, theirs = zip(*self.pairs, strict=True)
        return statistics.median(ours), statistics.median(theirs)

    @property
    def ranges(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """The least and the most of each side; there must be pairs."""
        ours, theirs = zip(*self.pairs, strict=True)
        return (min(ours), max(ours)), (min(theirs), max(theirs))

    @property
    def is_good(self) -> bool | None:
        """Whether the goal is met; None without a goal or a ratio."""
        return None if self.goal is None or self.spread is None else self.goal.is_met(self.spread.median)


def say(what: str) -> None:
    """A line of progress, with the minutes since the run began."""
    minutes, seconds = divmod(int(time.monotonic() - _BEGAN_S), 60)
    print(f"[{minutes:3}:{seconds:02}] {what}", file=sys.stderr, flush=True)


def rounds(runs: int, sides: Mapping[K, Callable[[], A]], *, what: str = "") -> list[dict[K, A]]:
    """Each side once a round, in reversed order in every other round. `what` is announced."""
    if what:
        say(f"{what}: {runs} round{'s'[: runs > 1]} of {len(sides)} sides")
    found = []
    for run in range(runs):
        order = list(sides.items())
        found.append({side: measure() for side, measure in (order[::-1] if run % 2 else order)})
    return found


def alternate(runs: int, ours: Callable[[], A], theirs: Callable[[], A], *, what: str = "") -> list[tuple[A, A]]:
    """`runs` pairs: ours, theirs, theirs, ours, ours, … so that neither always follows the other."""
    return [(found["ours"], found["theirs"]) for found in rounds(runs, {"ours": ours, "theirs": theirs}, what=what)]


def pairs_of(found: Sequence[Mapping[K, A]], ours: K, theirs: K) -> tuple[tuple[A, A], ...]:
    """Two sides of all rounds."""
    return tuple((each[ours], each[theirs]) for each in found)


def figures(pairs: Sequence[tuple[A, A]], value: Callable[[A], float]) -> Pairs:
    """One figure of each side of all pairs."""
    return tuple((value(ours), value(theirs)) for ours, theirs in pairs)


def percentile(values: Sequence[float], percent: float) -> float:
    """Nearest rank. Raises ValueError on nothing."""
    if not values:
        raise ValueError("no values")
    return sorted(values)[max(math.ceil(len(values) * percent / 100), 1) - 1]
