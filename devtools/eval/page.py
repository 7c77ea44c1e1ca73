"""One self-contained page of a report: figures, charts, and every recording with its words below its waveform.

The page loads nothing: style and script are within it. layout.html is a jinja2 template with autoescape, so whatever
comes from a manifest or a model is text.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from backend.languages import NAMES
from devtools.eval import charts, table, timeline, word_diff
from devtools.eval.normalization import UNSPACED
from devtools.eval.report import ALL, PACKAGE, Probe, Report
from devtools.eval.scoring import Scored

DRAWN = 100  # recordings; more make a page that no browser scrolls
OPEN = 20  # of them are unfolded
TILES = (
    ("Word errors", "%", "WER %"),
    ("Boundary error", "ms", "mean ms"),
    ("Within 80 ms", "%", "≤ 80 ms %"),
    ("Language right", "%", "language %"),
    ("× real time", "", "× real time"),
)


def html(report: Report) -> str:
    """The whole document."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(NAMES=NAMES, UNSPACED=UNSPACED, timeline=timeline, pieces=pieces)
    return (
        environment.get_template("layout.html").render(
            report=report,
            drawn=report.worst_first[:DRAWN],
            unfolded=OPEN,
            tiles=list(tiles(report)),
            figure_rows=table.figure_rows(report),
            charts=[
                (
                    "Where words begin and end",
                    "Share of word boundaries that are off by no more than this.",
                    charts.boundary_errors(report),
                ),
                ("Word errors by recording", "Worst first.", charts.word_errors(report)),
            ],
            probes=probes_by_kind(report),
            has_baseline=PACKAGE in report.systems,
        )
        + "\n"
    )


def tiles(report: Report) -> Iterator[tuple[str, str, list[str]]]:
    """Name, unit, and the value of each system."""
    systems = list(report.systems.values())
    columns = {column.title: column for column in table.COLUMNS}
    for name, unit, title in TILES:
        yield name, unit, [columns[title].cell(system.figures[ALL]) for system in systems]
    yield "Peak memory", "", [table.memory(system) for system in systems]
    if systems[0].probes:
        yield "Text from noise", f"of {len(systems[0].probes)}", [str(len(s.hallucinations)) for s in systems]


def probes_by_kind(report: Report) -> dict[str, list[tuple[str, Probe]]]:
    """Each kind of sound with its cells, system by system, detected before forced, loud before quiet."""
    rows: dict[str, list[tuple[str, Probe]]] = defaultdict(list)
    for name, system in report.systems.items():
        for probe in sorted(system.probes, key=lambda probe: (probe.language, -probe.level)):
            rows[probe.kind].append((name, probe))
    return rows


def pieces(scored: Scored) -> list[word_diff.Piece]:
    entry = scored.entry
    found = word_diff.diff(entry.text, scored.answer.text, entry.language)
    return list(word_diff.without_long_gaps(found, entry.language))
