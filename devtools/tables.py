"""Results for a terminal and as JSON, for every tool of this package.

`aligned` pads cells to columns, `figure` writes a number with three significant digits, `Footnotes` numbers the remarks
below a table, `sections` puts the parts under each other, `write_json` keeps the same results for programs.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NOT_MEASURED = "-"


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Rows of equal length, one a line; the first `left` columns are aligned left, the others right."""
    widths = [max(map(width, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        gaps = [" " * (most - width(cell)) for cell, most in zip(row, widths, strict=True)]
        cells = [cell + gap if i < left else gap + cell for i, (cell, gap) in enumerate(zip(row, gaps, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def width(text: str) -> int:
    """Columns on a terminal: East Asian wide and full-width characters take two."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def without_repeats(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """The rows, with the first cell empty where it equals the first cell of the row above."""
    names = [None, *(row[0] for row in rows)]
    return [["" if row[0] == above else row[0], *row[1:]] for above, row in zip(names, rows, strict=False)]


def digits(value: float) -> int:
    """Decimal places for three significant digits, two at most."""
    return 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2


def figure(value: float | None, decimals: int | None = None) -> str:
    """A number with `decimals` decimal places, by default three significant digits; "-" for None."""
    if value is None:
        return NOT_MEASURED
    return f"{value:.{digits(value) if decimals is None else decimals}f}"


class Footnotes:
    """Remarks below a table. Equal remarks share a number."""

    def __init__(self) -> None:
        self._remarks: list[str] = []

    def mark(self, *remarks: str) -> str:
        """The mark for a cell, such as "[2]"; "" if all `remarks` are empty."""
        remark = "; ".join(filter(None, remarks))
        if not remark:
            return ""
        if remark not in self._remarks:
            self._remarks.append(remark)
        return f"[{self._remarks.index(remark) + 1}]"

    def __str__(self) -> str:
        return "\n".join(f"[{number}] {remark}" for number, remark in enumerate(self._remarks, 1))


def sections(*parts: object) -> str:
    """The parts that are not empty, with an empty line between them."""
    return "\n\n".join(filter(None, map(str, parts)))


def write_json(path: Path, results: Any) -> None:
    """Writes `results`; makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
