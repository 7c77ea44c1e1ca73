"""The figures as text for a terminal: aligned columns, "-" where nothing was measured."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from devtools.eval.report import OURS, PACKAGE, Report, System
from devtools.eval.scoring import Figures


@dataclass(frozen=True)
class Column:
    """`value` picks the figure, times `scale` for people; `ratio`: it means something to divide two of them."""

    title: str
    value: Callable[[Figures], float | None]
    scale: float = 1.0
    digits: int = 1
    ratio: bool = False


COLUMNS = (
    Column("files", lambda f: f.recordings, digits=0),
    Column("failed", lambda f: f.failures, digits=0),
    Column("WER %", lambda f: f.wer, 100, 2, True),
    Column("CER %", lambda f: f.cer, 100, 2, True),
    Column("mean ms", lambda f: f.boundaries.mean_s if f.boundaries else None, 1000, 1, True),
    Column("p50 ms", lambda f: f.boundaries.p50_s if f.boundaries else None, 1000, 1, True),
    Column("p95 ms", lambda f: f.boundaries.p95_s if f.boundaries else None, 1000, 1, True),
    Column("≤ 80 ms %", lambda f: f.boundaries.close if f.boundaries else None, 100, 1),
    Column("zero %", lambda f: f.zero_length, 100, 2),
    Column("order", lambda f: f.order_violations, digits=0),
    Column("language %", lambda f: f.language, 100, 1),
    Column("× real time", lambda f: f.speed, 1, 1, True),
)


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Rows under each other: the first `left` columns from the left, the others from the right."""
    widths = [max(_width(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = []
        for i, (cell, width) in enumerate(zip(row, widths, strict=True)):
            gap = " " * (width - _width(cell))
            cells.append(cell + gap if i < left else gap + cell)
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def number(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def parts(ours: float | None, theirs: float | None) -> str:
    """Ours in parts of theirs, to two digits that mean something; "-" where there is nothing to divide by."""
    if ours is None or not theirs:
        return "-"
    ratio = ours / theirs
    return f"{ratio:.2f}" if ratio >= 0.1 or not ratio else f"{ratio:.2g}"


def figure_rows(report: Report) -> list[list[str]]:
    """A head, then for each group a row for each system and, with a baseline, one for the backend's ratio to it."""
    rows = [["", "", *(column.title for column in COLUMNS)]]
    for group in report.systems[OURS].figures:
        found = {name: system.figures[group] for name, system in report.systems.items()}
        for i, (name, figures) in enumerate(found.items()):
            cells = [number(_scaled(column, figures), column.digits) for column in COLUMNS]
            rows.append([group if i == 0 else "", name, *cells])
        if PACKAGE in found:
            ratios = [
                parts(column.value(found[OURS]), column.value(found[PACKAGE])) if column.ratio else ""
                for column in COLUMNS
            ]
            rows.append(["", "ratio", *ratios])
    return rows


def terminal(report: Report) -> str:
    """What `make eval` prints."""
    parts = [
        f"{report.manifest}: {len(report.recordings)} recordings, {report.duration_s / 60:.1f} min;"
        f" model {report.model}, aligner {report.aligner or 'none'}",
        aligned(figure_rows(report), left=2),
        "\n".join(f"{name}: {_beside(system)}" for name, system in report.systems.items()),
        *_failures(report),
    ]
    return "\n\n".join(parts)


def memory(system: System) -> str:
    return "-" if system.peak_bytes is None else f"{system.peak_bytes / 2**20:.0f} MiB"


def _beside(system: System) -> str:
    """What is no figure of a group: memory, and texts for sounds in which nobody speaks."""
    said = [f"peak memory {memory(system)}"]
    if system.probes:
        invented = sum(p.is_invented for p in system.probes)
        said.append(f"{invented} of {len(system.probes)} transcriptions of non-speech invented a text")
        said += [f"from {', '.join(system.inventing)}"] if invented else []
        failed = [p for p in system.probes if p.answer.failure]
        said += [f"{len(failed)} of them failed, the first with {failed[0].answer.failure}"] if failed else []
    everything = list(system.figures.values())[-1]
    if everything.silent:
        said.append(f"{everything.invented} of {everything.silent} recordings without speech were given a text")
    return "; ".join(said)


def _failures(report: Report) -> list[str]:
    """A line for each cause, with the recordings that it befell."""
    by_cause: dict[str, list[str]] = {}
    for recording in report.recordings:
        for name, scored in recording.scored.items():
            if scored.answer.failure:
                by_cause.setdefault(f"{name}: {scored.answer.failure}", []).append(recording.entry.id)
    return ["\n".join(f"failed: {cause} ({', '.join(ids)})" for cause, ids in by_cause.items())] if by_cause else []


def _scaled(column: Column, figures: Figures) -> float | None:
    value = column.value(figures)
    return None if value is None else value * column.scale


def _width(text: str) -> int:
    """Columns on a terminal: East Asian characters take two."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
