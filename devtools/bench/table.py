"""The rows as text for a terminal, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from devtools.bench.measurement import Row, Spread
from devtools.tables import NOT_MEASURED, Footnotes, aligned, figure, sections, without_repeats

_HEAD = ("", "side", "against", "", "side's", "against's", "ratio", "least", "most", "wanted", "")
_SIGNS = {"fewer": "×", "more": "×", "share": "of it"}


def terminal(rows: Sequence[Row], preface: str) -> str:
    """The table, and below it failures, notes and wrong texts."""
    notes = Footnotes()
    cells = [
        [row.measure, row.ours, row.theirs, row.unit, *_figures(row), notes.mark(row.failure, row.note, _wrong(row))]
        for row in rows
    ]
    return sections(preface, aligned(without_repeats([_HEAD, *cells]), left=4), notes)


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """With every pair; the table has only their medians."""
    return [_as_json(row) for row in rows]


def _as_json(row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {"measure": row.measure, "side": row.ours, "against": row.theirs}
    found |= {"unit": row.unit, "ratio": row.sense, "pairs": row.pairs}
    found |= row.spread._asdict() if row.spread else dict.fromkeys(Spread._fields)
    found |= {"wanted": f"{row.goal.bound} {row.goal.ratio:g}" if row.goal else None, "is_met": row.is_good}
    found["load"] = row.load and row.load._asdict()
    return found | {"note": row.note, "failure": row.failure, "wrong_texts": row.mismatches}


def _figures(row: Row) -> list[str]:
    """Both sides, the ratio and its spread, the goal."""
    if row.spread is None or row.medians is None:
        return [NOT_MEASURED] * 5 + [""]
    wanted = f"{row.goal.bound} {row.goal.ratio:g} {'met' if row.is_good else 'MISSED'}" if row.goal else "no goal"
    ratio = f"{figure(row.spread.median)} {_SIGNS[row.sense]}"
    sides = map(_side, row.medians, row.ranges)
    return [*sides, ratio, figure(row.spread.least), figure(row.spread.most), wanted]


def _side(median: float, ends: tuple[float, float]) -> str:
    """The median, with its range where there is one."""
    least, most = map(figure, ends)
    return figure(median) if least == most else f"{figure(median)} ({least}–{most})"


def _wrong(row: Row) -> str:
    return f"{row.mismatches} text(s) are not what they are alone" if row.mismatches else ""
