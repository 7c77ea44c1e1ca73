"""The rows as text for a terminal, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from devtools.bench.pairs import Row
from devtools.eval.table import aligned

_HEAD = ("", "side", "against", "", "side's", "against's", "ratio", "least", "most", "wanted", "")
_RATIOS = {"fewer": "×", "more": "×", "share": "of it"}
_LEFT = 4  # columns of words


def terminal(rows: Sequence[Row], preface: str) -> str:
    """The table; below it why rows have no figure, what is to be known about others, and texts that were wrong."""
    below: list[str] = []
    cells = [list(_HEAD)]
    for before, row in zip([None, *rows], rows, strict=False):
        remark = "; ".join(filter(None, (row.failure, row.note, _wrong(row))))
        if remark and remark not in below:
            below.append(remark)
        mark = f"[{below.index(remark) + 1}]" if remark else ""
        measure = "" if before is not None and before.measure == row.measure else row.measure
        cells.append([measure, row.ours, row.theirs, row.unit, *_figures(row), mark])
    remarks = "\n".join(f"[{number}] {remark}" for number, remark in enumerate(below, 1))
    return "\n\n".join(filter(None, (preface, aligned(cells, left=_LEFT), remarks)))


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Every figure of every pair; the table has only their medians."""
    return [
        {
            "measure": row.measure,
            "side": row.ours,
            "against": row.theirs,
            "unit": row.unit,
            "ratio": row.sense,
            "pairs": row.pairs,
            "median": row.spread.median if row.spread else None,
            "least": row.spread.least if row.spread else None,
            "most": row.spread.most if row.spread else None,
            "wanted": f"{row.goal.bound} {row.goal.ratio:g}" if row.goal else None,
            "is_met": row.is_good,
            "note": row.note,
            "failure": row.failure,
            "wrong_texts": row.mismatches,
        }
        for row in rows
    ]


def _figures(row: Row) -> list[str]:
    """Both sides, the ratio with its sign, its spread, and what was wanted."""
    if row.spread is None or row.medians is None:
        return ["-"] * 5 + [""]
    ours, theirs = map(_figure, row.medians)
    sign = _RATIOS[row.sense]
    ratio = f"{_figure(row.spread.median)} {sign}"
    wanted = f"{row.goal.bound} {row.goal.ratio:g} {'met' if row.is_good else 'MISSED'}" if row.goal else ""
    return [ours, theirs, ratio, _figure(row.spread.least), _figure(row.spread.most), wanted]


def _figure(value: float) -> str:
    """Three digits that mean something."""
    size = abs(value)
    return f"{value:.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def _wrong(row: Row) -> str:
    return f"{row.mismatches} text(s) are not what they are alone" if row.mismatches else ""
