"""What was measured, beside its goal: the lines of the one table, and of the JSON that is kept with it.

A line without a goal tells and cannot be missed. A line whose measuring failed is missed, with the cause as its value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from devtools.eval.table import aligned

_HEAD = ("", "", "measured", "goal", "")
_LONGEST_CELL = 72  # characters; the JSON has it whole


@dataclass(frozen=True)
class Line:
    """`measured` and `goal` as people read them; `figures` as programs do. `is_met` is None where there is no goal."""

    measure: str
    what: str
    measured: str
    goal: str = ""
    is_met: bool | None = None
    note: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)


def at_most(measure: str, what: str, value: float | None, most: float, unit: str, note: str = "") -> Line:
    """A figure that must not be above `most`; None, where there was nothing to measure, is a miss."""
    shown = "nothing measured" if value is None else f"{value:.{_digits(value)}f} {unit}"
    is_met = value is not None and value <= most
    return Line(measure, what, shown, f"≤ {most:g} {unit}", is_met, note, {"value": value, "most": most})


def none_of(measure: str, what: str, count: int, note: str = "") -> Line:
    return Line(measure, what, str(count), "0", count == 0, note, {"value": count, "most": 0})


def holds(measure: str, what: str, measured: str, goal: str, is_met: bool, note: str = "", **figures: Any) -> Line:
    return Line(measure, what, measured, goal, is_met, note, figures)


def told(measure: str, what: str, measured: str, **figures: Any) -> Line:
    return Line(measure, what, measured, figures=figures)


def failed(measure: str, cause: str) -> Line:
    """The measuring itself came to nothing."""
    return Line(measure, "", cause, "measured", False)


def terminal(lines: Sequence[Line], preface: str) -> str:
    """The table; below it what is to be known about single lines, whole."""
    cells = [list(_HEAD)]
    notes: list[str] = []
    for before, line in zip([None, *lines], lines, strict=False):
        note = "; ".join(filter(None, (line.measured if len(line.measured) > _LONGEST_CELL else "", line.note)))
        if note:
            notes.append(f"[{len(notes) + 1}] {note}")
        verdict = "" if line.is_met is None else "met" if line.is_met else "FAILED"
        measure = "" if before is not None and before.measure == line.measure else line.measure
        mark = f" [{len(notes)}]" if note else ""
        cells.append([measure, line.what, _cut(line.measured), line.goal, verdict + mark])
    missed = sum(line.is_met is False for line in lines)
    goals = sum(line.is_met is not None for line in lines)
    closing = f"{goals - missed} of {goals} goals met"
    return "\n\n".join(filter(None, (preface, aligned(cells, left=len(_HEAD)), "\n".join(notes), closing)))


def as_json(lines: Sequence[Line]) -> list[dict[str, Any]]:
    return [{**asdict(line), "figures": dict(line.figures)} for line in lines]


def are_met(lines: Sequence[Line]) -> bool:
    """Whether there is anything, and nothing of it was missed."""
    return bool(lines) and all(line.is_met is not False for line in lines)


def quantile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that is not exceeded by `share` of them; None of none."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else None


def _digits(value: float) -> int:
    return 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_CELL else text[: _LONGEST_CELL - 1] + "…"
