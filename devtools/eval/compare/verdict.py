"""What follows from the figures, in words, by thresholds that the caller can give.

Against the first system a difference counts only if its interval leaves out "no difference" and it is larger than the
margin. It is no difference if the whole interval lies within the margin. Everything else is not decided: there are too
few recordings. Times that were taken on a busy machine are not judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from devtools.eval.compare.paired import BOUNDARIES, SPEED, Difference
from devtools.eval.scoring import Figures
from devtools.machine_load import Load

Outcome = Literal["better", "worse", "the same", "not decided", "not judged"]
FEW = 20  # recordings below which an interval is too narrow, which is said. Chosen, not measured
TOO_FEW = 5  # below which nothing is decided. Chosen, not measured


@dataclass(frozen=True)
class Thresholds:
    """Shares in percent, times in seconds unless named otherwise; None: not asked for.

    `margin_*`: differences that do not matter, in percentage points of word errors, language and success, in ms of
    boundary errors, in percent of speed.
    """

    min_success: float = 100.0
    max_wer: float | None = None
    max_p95_s: float | None = None
    max_boundary_ms: float | None = None
    margin_points: float = 0.5
    margin_ms: float = 10.0
    margin_speed: float = 10.0


@dataclass(frozen=True)
class Judged:
    """One system. `passes`: every threshold that was asked for.

    Sentences for people: `words` what follows, `compared` each difference from the first system.
    """

    system: str
    passes: bool
    words: tuple[str, ...]
    compared: tuple[str, ...]
    outcomes: Mapping[str, Outcome]  # by measure, against the first system; empty for it


def judge(
    system: str,
    figures: Figures,
    load: Load | None,
    against: Sequence[Difference],
    thresholds: Thresholds,
    first: str = "",
    first_load: Load | None = None,
) -> Judged:
    """`against`: its differences from the system `first`; none for that system itself."""
    busy = _is_busy(load) or (bool(against) and _is_busy(first_load))
    limits = list(_limits(figures, thresholds))
    passes, words = all(limit.is_kept for limit in limits), [limit.phrase(_is_busy(load)) for limit in limits]
    outcomes = {each.measure: outcome(each, thresholds, busy=busy) for each in against}
    sentences = [f"{'Within' if passes else 'NOT within'} what is asked for: {'; '.join(words)}."]
    if against:
        sentences.append(_conclusion(system, first, outcomes))
        fewest = min(each.recordings for each in against)
        if fewest < FEW:
            sentences.append(f"With {fewest} recordings the intervals are too narrow; {FEW} and more are safer.")
    elif busy and load is not None:
        sentences.append(f"Its times are not to be trusted ({load}).")
    compared = tuple(_sentence(each, outcomes[each.measure], first) for each in against)
    return Judged(system, passes, tuple(sentences), compared, outcomes)


def outcome(found: Difference, thresholds: Thresholds, *, busy: bool = False) -> Outcome:
    """Of one difference."""
    if found.measure == SPEED and busy:
        return "not judged"
    if found.low is None or found.high is None or found.recordings < TOO_FEW:
        return "not decided"
    if found.unit == "times":
        factor = 1 + thresholds.margin_speed / 100
        least, none, most = 1 / factor, 1.0, factor
    else:
        most = thresholds.margin_ms if found.unit == "ms" else thresholds.margin_points
        least, none = -most, 0.0
    if least <= found.low and found.high <= most:
        return "the same"
    if found.low <= none <= found.high or least <= found.value <= most:
        return "not decided"
    return "better" if (found.value > none) is found.more_is_better else "worse"


def _is_busy(load: Load | None) -> bool:
    return load is not None and load.is_busy


class _Limit(NamedTuple):
    """A threshold that was asked for, and the figure, None where it was not measured."""

    name: str
    value: float | None
    bound: Literal["≥", "≤"]
    limit: float
    unit: str

    @property
    def is_kept(self) -> bool:
        if self.value is None:
            return False
        return self.value >= self.limit if self.bound == "≥" else self.value <= self.limit

    def phrase(self, busy: bool) -> str:
        value = "not measured" if self.value is None else f"{self.value:.4g} {self.unit}"
        where = ", on a busy machine" if busy and self.unit == "s" else ""
        return f"{self.name} {value} ({self.bound} {self.limit:g} {self.unit} asked for{where})"


def _limits(figures: Figures, asked: Thresholds) -> Iterator[_Limit]:
    yield _Limit("success", 100 * figures.success, "≥", asked.min_success, "%")
    if asked.max_wer is not None:
        yield _Limit("WER", None if figures.wer is None else 100 * figures.wer, "≤", asked.max_wer, "%")
    if asked.max_boundary_ms is not None:
        mean_ms = 1000 * figures.boundaries.mean_s if figures.boundaries else None
        yield _Limit("boundary error", mean_ms, "≤", asked.max_boundary_ms, "ms")
    if asked.max_p95_s is not None:
        p95_s = figures.latency.p95_s if figures.latency else None
        yield _Limit("latency p95", p95_s, "≤", asked.max_p95_s, "s")


def _sentence(found: Difference, result: Outcome, first: str) -> str:
    interval = "no interval from one recording"
    if found.low is not None and found.high is not None:
        interval = f"95 %: {amount(found, found.low)} to {amount(found, found.high)}"
    unit = f"times as fast as {first}" if found.unit == "times" else found.unit
    because = ": the machine was busy" if result == "not judged" else ""
    return f"{found.measure.capitalize()}: {result}{because} ({amount(found, found.value)} {unit}; {interval})."


def amount(found: Difference, value: float) -> str:
    """With its sign, where it is a difference."""
    if found.unit == "times":
        return f"{value:.2f}"
    return f"{value:+.1f}" if found.measure == BOUNDARIES else f"{value:+.2f}"


def _conclusion(system: str, first: str, outcomes: Mapping[str, Outcome]) -> str:
    by_outcome = {kind: [name for name, found in outcomes.items() if found == kind] for kind in outcomes.values()}
    worse, better, open_ = (by_outcome.get(kind, []) for kind in ("worse", "better", "not decided"))
    unjudged = f"; {SPEED} is not judged" if "not judged" in by_outcome else ""
    if worse:
        also = f", better in {_and(better)}" if better else ""
        return f"So {system} is worse than {first} in {_and(worse)}{also}{unjudged}."
    if open_:
        also = f"; better in {_and(better)}" if better else ""
        verb = "are" if len(open_) > 1 else "is"
        said = f"So {system} is worse than {first} in nothing that is decided, but {_and(open_)} {verb} not"
        return f"{said}: that takes more recordings{also}{unjudged}."
    if better:
        return f"So {system} can take the place of {first}: better in {_and(better)}, worse in nothing{unjudged}."
    return f"So {system} can take the place of {first}: no difference that matters{unjudged}."


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
