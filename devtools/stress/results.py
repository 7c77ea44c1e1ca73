"""Measured values beside their goals: recorded by tests, printed as one table, written as JSON.

A result without a goal cannot be missed. A test that raises adds a missed result with the cause as its value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from devtools.server_process import ROOT
from devtools.stress.profile import Profile
from devtools.tables import Footnotes, aligned, figure, sections, without_repeats, write_json

TESTS = ROOT / "test/devtools/stress"
_LONGEST_CELL = 72  # characters; a footnote and the JSON have the whole text


@dataclass(frozen=True)
class Result:
    """`is_met` is None without a goal; `is_timed`: a goal of seconds, which a busy machine misses."""

    measure: str
    what: str
    measured: str
    goal: str = ""
    is_met: bool | None = None
    note: str = ""
    is_timed: bool = False
    figures: Mapping[str, Any] = field(default_factory=dict)


class Results:
    """What one test measured; `measure` names the rows to come."""

    def __init__(self, measure: str = "") -> None:
        self.measure = measure
        self.rows: list[Result] = []

    def check(self, what: str, measured: str, goal: str = "", is_met: bool | None = None, note: str = "", *,
              is_timed: bool = False, **figures: Any) -> None:  # fmt: skip
        self.rows.append(Result(self.measure, what, measured, goal, is_met, note, is_timed, figures))

    def at_most(self, what: str, value: float | None, most: float, unit: str, note: str = "") -> None:
        """None, where nothing was measured, misses the goal."""
        shown = "nothing measured" if value is None else f"{figure(value)} {unit}"
        is_met, is_timed = value is not None and value <= most, value is not None and unit == "s"
        self.check(what, shown, f"≤ {most:g} {unit}", is_met, note, is_timed=is_timed, value=value, most=most)

    def none(self, what: str, count: int, note: str = "", *, is_timed: bool = False) -> None:
        self.check(what, str(count), "0", count == 0, note, is_timed=is_timed, value=count, most=0)

    def fault(self, name: str, measured: str, goal: str, is_met: bool, golden: str, note: str = "") -> None:
        """A fault, and the golden request after it."""
        self.measure = "fault"
        self.check(name, f"{measured}; golden {golden}", f"{goal}; exact", is_met and golden == "exact", note)

    def __getitem__(self, what: str) -> Result:
        return next(row for row in self.rows if row.what == what)


class Run:
    """A pytest plugin: selects the tests of `groups`, in their order, and writes `rows` after each test."""

    def __init__(self, profile: Profile, out: Path, groups: Sequence[str] = ()) -> None:
        self.profile, self.out, self._groups = profile, out, groups
        self.rows: list[Result] = []

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        marks = {item: [mark.args for mark in item.iter_markers("soak")] for item in items}
        if self._groups:
            items[:] = [item for group in self._groups for item, args in marks.items() if (group,) in args]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            cause = crash.message if crash else report.longreprtext
            self.rows.append(Result(report.location[2], "", " ".join(cause.split()), "measured", False))
        if report.when == "teardown":
            write_json(self.out, {"profile": asdict(self.profile), "lines": [asdict(row) for row in self.rows]})

    def main(self, tests: Path, mark: str, header: str) -> int:
        """Runs the tests with the mark and prints the table; 1 when a goal was missed."""
        shown = "-vv", "--tb=no", "--no-header", "--no-summary", "--assert=plain", "--timeout=0"
        code = pytest.main(
            [*shown, f"-c{ROOT}/pyproject.toml", f"--confcutdir={tests}", f"-m{mark}", str(tests)], [self]
        )
        if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            self.rows.append(Result(mark, "", f"stopped: {pytest.ExitCode(code).name}", "measured", False))
        print("", table(self.rows, header), "", self.out, sep="\n")
        return 0 if are_met(self.rows) else 1


def table(rows: Sequence[Result], header: str) -> str:
    notes = Footnotes()
    cells = []
    for row in rows:
        is_long = len(row.measured) > _LONGEST_CELL
        mark = notes.mark(row.measured if is_long else "", row.note)
        verdict = "" if row.is_met is None else "met" if row.is_met else "FAILED"
        shown = row.measured[: _LONGEST_CELL - 1] + "…" if is_long else row.measured
        cells.append([row.measure, row.what, shown, row.goal, f"{verdict} {mark}".strip()])
    goals = [row.is_met for row in rows if row.is_met is not None]
    text = aligned([["", "", "measured", "goal", ""], *without_repeats(cells)], left=5)
    return sections(header, text, notes, f"{sum(goals)} of {len(goals)} goals met")


def are_met(rows: Sequence[Result]) -> bool:
    """Whether there is a result, and no goal was missed."""
    return bool(rows) and all(row.is_met is not False for row in rows)


def quantile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that `share` of them do not exceed; None without values."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else None
