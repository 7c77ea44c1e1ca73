"""How two systems differ on the same recordings, with a 95 % interval by bootstrap over the recordings.

A figure of a system is a ratio of sums over the recordings, such as errors over words. Recordings are drawn with
replacement, each with what both systems made of it, so what is hard for both cancels out. The interval says what other
recordings of the same kind would give; it knows nothing of other kinds. Source: Bisani and Ney, Bootstrap estimates
for confidence intervals in ASR performance evaluation, ICASSP 2004.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from devtools.eval.scoring import Scored

DRAWS = 2000
INTERVAL = (2.5, 97.5)  # percentiles of the draws
_CHUNK = 100  # draws at a time, so that a large corpus fits into memory
_SEED = 0  # the same report twice has the same intervals

Parts = Callable[[Scored], tuple[float, float]]  # what a recording adds above and below the line
Unit = Literal["points", "ms", "times"]


@dataclass(frozen=True)
class Measure:
    """A figure to compare. "times": the first's over the other's, 2 is twice as fast; else other less first.

    `more_is_better` counts for differences; `scale`: from a plain ratio to `unit`.
    """

    name: str
    parts: Parts
    unit: Unit
    scale: float = 100.0
    more_is_better: bool = False


@dataclass(frozen=True)
class Difference:
    """Of `system` against the first one. `low`, `high`: the interval, None where one recording gives none."""

    system: str
    measure: str
    unit: Unit
    more_is_better: bool
    recordings: int
    value: float
    low: float | None = None
    high: float | None = None


def _errors(found: Scored) -> tuple[float, float]:
    return (found.score.words.errors, found.score.words.units) if found.entry.is_speech else (0, 0)


def _boundaries(found: Scored) -> tuple[float, float]:
    return sum(found.score.edge_errors_s), len(found.score.edge_errors_s)


def _language(found: Scored) -> tuple[float, float]:
    return float(found.score.right_language is True), float(found.score.right_language is not None)


def _success(found: Scored) -> tuple[float, float]:
    return float(not found.hypothesis.failure), 1.0


def _time(found: Scored) -> tuple[float, float]:
    return found.hypothesis.took_s, found.duration_s


WORDS, BOUNDARIES, LANGUAGE, SUCCESS, SPEED = "word errors", "boundary errors", "language", "success", "speed"
MEASURES = (
    Measure(SUCCESS, _success, "points", more_is_better=True),
    Measure(WORDS, _errors, "points"),
    Measure(BOUNDARIES, _boundaries, "ms", 1000.0),
    Measure(LANGUAGE, _language, "points", more_is_better=True),
    Measure(SPEED, _time, "times", 1.0, more_is_better=True),
)


def differences(system: str, pairs: Sequence[tuple[Scored, Scored]]) -> list[Difference]:
    """Of all measures that both have; `pairs`: the first system's and this one's for each recording."""
    found = [_difference(system, measure, pairs) for measure in MEASURES]
    return [each for each in found if each is not None]


def _difference(system: str, measure: Measure, pairs: Sequence[tuple[Scored, Scored]]) -> Difference | None:
    if measure.unit == "times":  # a failure takes no time that could be compared
        pairs = [pair for pair in pairs if not any(each.hypothesis.failure for each in pair)]
    parts = np.array([(*measure.parts(first), *measure.parts(other)) for first, other in pairs], float).reshape(-1, 4)
    parts = parts[(parts[:, 1] > 0) | (parts[:, 3] > 0)]
    value = _combined(measure, parts.sum(axis=0))
    if not np.isfinite(value):
        return None
    low, high = _interval(measure, parts)
    return Difference(system, measure.name, measure.unit, measure.more_is_better, len(parts), float(value), low, high)


def _interval(measure: Measure, parts: NDArray[np.float64]) -> tuple[float | None, float | None]:
    """parts: (n, 4)."""
    count = len(parts)
    if count < 2:
        return None, None
    chance, drawn = np.random.default_rng(_SEED), []
    for _ in range(DRAWS // _CHUNK):
        weights = chance.multinomial(count, np.full(count, 1 / count), size=_CHUNK)
        drawn.append(_combined(measure, weights @ parts))
    values = np.concatenate(drawn)
    low, high = np.percentile(values[np.isfinite(values)], INTERVAL)
    return float(low), float(high)


def _combined(measure: Measure, sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """sums: (..., 4), above and below the line of the first and of the other. NaN or inf where there is nothing."""
    first_above, first_below, above, below = np.moveaxis(sums, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        first, other = first_above / first_below, above / below
        found: NDArray[np.float64] = measure.scale * (first / other if measure.unit == "times" else other - first)
    return found
