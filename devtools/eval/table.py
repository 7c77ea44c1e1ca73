"""The figures as text for a terminal; "-" where nothing was measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from devtools.eval.live import lane_figures
from devtools.eval.report import ALL, BACKEND, PACKAGE, Report, System
from devtools.tables import NOT_MEASURED, aligned, figure, sections, without_repeats


@dataclass(frozen=True)
class Column:
    """`value` picks a figure, shown times `scale`; `has_ratio`: two of them can be divided."""

    title: str
    value: Callable[[Any], float | None]
    scale: float = 1.0
    decimals: int = 1
    has_ratio: bool = False

    def cell(self, figures: Any) -> str:
        value = self.value(figures)
        return figure(None if value is None else value * self.scale, self.decimals)


BOUNDARY_COLUMNS = (
    Column("mean ms", lambda f: f.boundaries and f.boundaries.mean_s, 1000, 1, True),
    Column("p50 ms", lambda f: f.boundaries and f.boundaries.p50_s, 1000, 1, True),
    Column("p95 ms", lambda f: f.boundaries and f.boundaries.p95_s, 1000, 1, True),
    Column("≤ 80 ms %", lambda f: f.boundaries and f.boundaries.close, 100, 1),
)
COLUMNS = (
    Column("files", lambda f: f.recordings, decimals=0),
    Column("failed", lambda f: f.failures, decimals=0),
    Column("WER %", lambda f: f.wer, 100, 2, True),
    Column("CER %", lambda f: f.cer, 100, 2, True),
    *BOUNDARY_COLUMNS,
    Column("zero %", lambda f: f.zero_length, 100, 2),
    Column("order", lambda f: f.order_violations, decimals=0),
    Column("language %", lambda f: f.language, 100, 1),
    Column("× real time", lambda f: f.speed, 1, 1, True),
)


def rows(columns: Sequence[Column], groups: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """A head, then for each group a row for each system and, with a baseline, one for the backend's ratio to it."""
    found = [["", "", *(column.title for column in columns)]]
    for group, systems in groups.items():
        found += [[group, name, *(column.cell(figures) for column in columns)] for name, figures in systems.items()]
        if PACKAGE in systems:
            found.append([group, "ratio", *(_ratio(column, systems) for column in columns)])
    return without_repeats(found)


def _ratio(column: Column, systems: Mapping[str, Any]) -> str:
    """To two digits that mean something; "-" where there is nothing to divide by."""
    if not column.has_ratio:
        return ""
    backend, package = column.value(systems[BACKEND]), column.value(systems[PACKAGE])
    if backend is None or not package:
        return NOT_MEASURED
    ratio = backend / package
    return f"{ratio:.2f}" if ratio >= 0.1 or not ratio else f"{ratio:.2g}"


def figure_rows(report: Report) -> list[list[str]]:
    groups = report.systems[BACKEND].figures
    return rows(COLUMNS, {group: {name: s.figures[group] for name, s in report.systems.items()} for group in groups})


def cells(report: Report, title: str) -> list[str]:
    """A figure of all recordings, for each system."""
    column = next(column for column in COLUMNS if column.title == title)
    return [column.cell(system.figures[ALL]) for system in report.systems.values()]


def terminal(report: Report) -> str:
    """What `make eval` prints."""
    return sections(
        f"{report.manifest}: {len(report.recordings)} recordings, {report.duration_s / 60:.1f} min;"
        f" model {report.model}, aligner {report.aligner or 'none'}",
        aligned(figure_rows(report), left=2),
        "\n".join(f"{name}: {'; '.join(_remarks(system))}" for name, system in report.systems.items()),
        "\n".join(_failures(report)),
        lane_figures.terminal(report.live) if report.live else "",
    )


def _remarks(system: System) -> list[str]:
    """Peak memory and hallucinations, which belong to no group."""
    remarks = [f"peak memory {system.memory}"]
    if system.probes:
        kinds = system.hallucinations
        remarks.append(f"{len(kinds)} of {len(system.probes)} transcriptions of non-speech invented a text")
        if kinds:
            remarks.append(f"from {', '.join(f'{kind} ({kinds.count(kind)})' for kind in dict.fromkeys(kinds))}")
        if failures := [p.hypothesis.failure for p in system.probes if p.hypothesis.failure]:
            remarks.append(f"{len(failures)} of them failed, the first with {failures[0]}")
    everything = system.figures[ALL]
    if everything.silent:
        remarks.append(f"{everything.invented} of {everything.silent} recordings without speech were given a text")
    return remarks


def _failures(report: Report) -> list[str]:
    """A line for each cause, with its recordings."""
    by_cause: dict[str, list[str]] = defaultdict(list)
    for recording in report.recordings:
        for name, scored in recording.scored.items():
            if failure := scored.hypothesis.failure:
                by_cause[f"{name}: {failure}"].append(recording.entry.id)
    return [f"failed: {cause} ({', '.join(ids)})" for cause, ids in by_cause.items()]
