"""The figures as text for a terminal; "-" where nothing was measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from devtools.eval.compare.specs import BACKEND, PACKAGE
from devtools.eval.live import lane_figures
from devtools.eval.report import ALL, Report, System
from devtools.tables import NOT_MEASURED, aligned, figure, sections, without_repeats

ARROWS = "↓ fewer is better, ↑ more is better"
_ARROW = {"fewer": " ↓", "more": " ↑", "": ""}


@dataclass(frozen=True)
class Column:
    """`value` picks a figure, shown times `scale`; `has_ratio`: two of them can be divided. `meaning`: for people."""

    title: str
    value: Callable[[Any], float | None]
    scale: float = 1.0
    decimals: int = 1
    has_ratio: bool = False
    better: Literal["fewer", "more", ""] = ""
    meaning: str = ""

    @property
    def head(self) -> str:
        """The title, with an arrow to the better side."""
        return self.title + _ARROW[self.better]

    def cell(self, figures: Any) -> str:
        value = self.value(figures)
        return figure(None if value is None else value * self.scale, self.decimals)


BOUNDARY_COLUMNS = (
    Column("mean ms", lambda f: f.boundaries and f.boundaries.mean_s, 1000, 1, True, "fewer",
           "how far starts and ends of words are from the truth, on average, of the words that match it"),
    Column("p50 ms", lambda f: f.boundaries and f.boundaries.p50_s, 1000, 1, True, "fewer",
           "half of the starts and ends are off by no more than this"),
    Column("p95 ms", lambda f: f.boundaries and f.boundaries.p95_s, 1000, 1, True, "fewer",
           "95 % of the starts and ends are off by no more than this"),
    Column("≤ 80 ms %", lambda f: f.boundaries and f.boundaries.close, 100, 1, False, "more",
           "starts and ends that are within 80 ms of the truth, one time class of the aligner"),
)  # fmt: skip
COLUMNS = (
    Column("files", lambda f: f.recordings, decimals=0, meaning="recordings of this group"),
    Column("success %", lambda f: f.success, 100, 1, False, "more",
           "recordings that were transcribed without an error; the others count as heard nothing"),
    Column("WER %", lambda f: f.wer, 100, 2, True, "fewer",
           "word error rate: words that are wrong, missing or too many, in percent of the words that were said"),
    Column("CER %", lambda f: f.cer, 100, 2, True, "fewer",
           "character error rate: the same for characters; the usual figure for Chinese and Japanese"),
    *BOUNDARY_COLUMNS,
    Column("zero %", lambda f: f.zero_length, 100, 2, False, "fewer", "words that end no later than they start"),
    Column("order", lambda f: f.order_violations, 1, 0, False, "fewer",
           "words that start before the one before them has ended"),
    Column("language %", lambda f: f.language, 100, 1, False, "more", "recordings whose language was found"),
    Column("× real time", lambda f: f.speed, 1, 1, True, "more",
           "seconds of sound for each second of work, one file at a time, after one that is not counted"),
    Column("p50 s", lambda f: f.latency and f.latency.p50_s, 1, 2, True, "fewer",
           "latency: half of the recordings took no longer than this from request to reply"),
    Column("p95 s", lambda f: f.latency and f.latency.p95_s, 1, 2, True, "fewer",
           "latency: 95 % of the recordings took no longer than this"),
)  # fmt: skip


def rows(columns: Sequence[Column], groups: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """A head, then for each group a row for each system and, with a baseline, one for the backend's ratio to it."""
    found = [["", "", *(column.head for column in columns)]]
    for group, systems in groups.items():
        found += [[group, name, *(column.cell(figures) for column in columns)] for name, figures in systems.items()]
        if PACKAGE in systems and BACKEND in systems:
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
    groups = report.systems[report.first].figures
    return rows(COLUMNS, {group: {name: s.figures[group] for name, s in report.systems.items()} for group in groups})


def cells(report: Report, title: str) -> list[str]:
    """A figure of all recordings, for each system."""
    column = next(column for column in COLUMNS if column.title == title)
    return [column.cell(system.figures[ALL]) for system in report.systems.values()]


def terminal(report: Report) -> str:
    """What `make eval` prints."""
    return sections(
        f"{report.manifest}: {of(len(report.recordings), 'recording')}, {report.duration_s / 60:.1f} min;"
        f" model {report.model}, aligner {report.aligner or 'none'}",
        "\n".join(f"{name}: {system.described}" for name, system in report.systems.items() if system.described),
        aligned(figure_rows(report), left=2),
        f"{ARROWS}; ratio: {BACKEND} ÷ {PACKAGE}" if PACKAGE in report.systems else ARROWS,
        "\n".join(f"{name}: {'; '.join(_remarks(system))}" for name, system in report.systems.items()),
        "\n".join(_failures(report)),
        lane_figures.terminal(report.live) if report.live else "",
        "\n".join(["Verdict", *(f"  {line}" for line in verdict_lines(report))]),
    )


def loads(report: Report) -> list[tuple[str, bool]]:
    """What else the machine did while each system ran, and whether it was busy; once where it is the same for all."""
    found = [(name, str(system.load), system.load.is_busy) for name, system in report.systems.items() if system.load]
    if len({words for _, words, _ in found}) == 1:
        return [(words, is_busy) for _, words, is_busy in found[:1]]
    return [(f"{name}: {words}", is_busy) for name, words, is_busy in found]


def of(count: int, noun: str) -> str:
    """A number and its noun."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def verdict_lines(report: Report) -> list[str]:
    """A line for each sentence, the system's name before its first."""
    return [
        f"{f'{judged.system}: ' if number == 0 else '  '}{sentence}"
        for judged in report.verdict
        for number, sentence in enumerate((*judged.words, *judged.compared))
    ]


def _remarks(system: System) -> list[str]:
    """Peak memory, hallucinations and the load of the machine, which belong to no group."""
    remarks = [f"peak memory {system.memory}"]
    if system.load:
        remarks.append(str(system.load))
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
