"""Measured values beside their goals: recorded by tests, printed as one table, written as JSON.

A result without a goal cannot be missed. A test that raises adds a missed result with the cause as its value.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from devtools.stress.profile import Profile
from devtools.tables import Footnotes, aligned, figure, sections, without_repeats, write_json

_LONGEST_CELL = 72  # characters; a footnote and the JSON have the whole text


@dataclass(frozen=True)
class Result:
    """One row: `measured` and `goal` as text, `figures` for programs. `is_met` is None without a goal."""

    measure: str
    what: str
    measured: str
    goal: str = ""
    is_met: bool | None = None
    note: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)


class Results:
    """What one test measured."""

    def __init__(self, measure: str = "", record: Callable[[str, object], None] | None = None) -> None:
        self.measure = measure  # of the rows to come
        self.rows: list[Result] = []
        self._record = record

    def check(self, what: str, measured: str, goal: str = "", is_met: bool | None = None, note: str = "",
              **figures: Any) -> None:  # fmt: skip
        self.rows.append(Result(self.measure, what, measured, goal, is_met, note, figures))
        if self._record:
            self._record("result", self.rows[-1])

    def at_most(self, what: str, value: float | None, most: float, unit: str, note: str = "") -> None:
        """None, where nothing was measured, misses the goal."""
        shown = "nothing measured" if value is None else f"{figure(value)} {unit}"
        is_met = value is not None and value <= most
        self.check(what, shown, f"≤ {most:g} {unit}", is_met, note, value=value, most=most)

    def none(self, what: str, count: int, note: str = "") -> None:
        self.check(what, str(count), "0", count == 0, note, value=count, most=0)

    def fault(self, name: str, measured: str, goal: str, is_met: bool, golden: str, note: str = "") -> None:
        """A fault, and the golden request after it."""
        self.measure = "fault"
        self.check(name, f"{measured}; golden {golden}", f"{goal}; exact", is_met and golden == "exact", note)

    def missed_counts(self) -> list[Result]:
        """Missed goals without those of seconds: a busy machine misses those."""
        return [row for row in self.rows if row.is_met is False and not row.measured.endswith(" s")]

    def __getitem__(self, what: str) -> Result:
        return next(row for row in self.rows if row.what == what)


@pytest.fixture
def results(record_property: Callable[[str, object], None]) -> Results:
    return Results(record=record_property)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Like tmp_path, but deleted at once: recordings take gigabytes."""
    with tempfile.TemporaryDirectory(prefix="stress-") as name:
        yield Path(name)


class Run:
    """A pytest plugin for `main`: collects the results, and writes them after each test."""

    def __init__(self, profile: Profile, out: Path) -> None:
        self.profile, self.out = profile, out
        self.rows: list[Result] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self.rows += _rows_of(report)
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            cause = crash.message if crash else report.longreprtext
            self.rows.append(Result(report.location[2], "", " ".join(cause.split()), "measured", False))
        if report.when == "teardown":
            write_json(self.out, {"profile": asdict(self.profile), "lines": [asdict(row) for row in self.rows]})

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        missed = sum(row.is_met is False for row in _rows_of(report))
        return ("failed", "F", f"{missed} MISSED") if report.when == "call" and missed else None

    def main(self, files: Sequence[Path], header: str, *plugins: object) -> int:
        """Runs the tests of `files` and prints the table; 1 when a goal was missed."""
        arguments = ["-vv", "--assert=plain", "--tb=no", "--no-header", "--no-summary", "--timeout=0", *map(str, files)]
        code = pytest.main(arguments, [sys.modules[__name__], self, *plugins])
        if code == pytest.ExitCode.INTERRUPTED:
            self.rows.append(Result("run", "", "stopped", "measured", False))
        print("", table(self.rows, header), "", self.out, sep="\n")
        return 0 if are_met(self.rows) else 1


@pytest.fixture(scope="session")
def run(pytestconfig: pytest.Config) -> Run:
    return next(plugin for plugin in pytestconfig.pluginmanager.get_plugins() if isinstance(plugin, Run))


@pytest.fixture(scope="session")
def profile(run: Run) -> Profile:
    return run.profile


def _rows_of(report: Any) -> list[Result]:
    return [value for name, value in getattr(report, "user_properties", ()) if name == "result"]


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
