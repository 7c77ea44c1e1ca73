"""One self-contained page of a report: figures, charts, and every recording with its words below its waveform.

The page loads nothing: style and script are within it. layout.html is a jinja2 template with autoescape, so whatever
comes from a manifest or a model is text.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from backend.languages import NAMES
from devtools.eval import charts, table, timeline, word_diff
from devtools.eval.live import lane_figures
from devtools.eval.report import Probe, Report

SHOWN = 100  # recordings; more make a page that no browser scrolls
UNFOLDED = 20  # of them


def html(report: Report) -> str:
    """The whole document."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(
        charts=charts, lane_figures=lane_figures, table=table, timeline=timeline, word_diff=word_diff, languages=NAMES
    )
    shown = report.worst_first[:SHOWN]
    return environment.get_template("layout.html").render(
        report=report, shown=shown, unfolded=UNFOLDED, probes=probes_by_kind(report)
    )


def probes_by_kind(report: Report) -> dict[str, list[tuple[str, Probe]]]:
    """Each kind of sound with its cells, system by system, detected before forced, loud before quiet."""
    rows: dict[str, list[tuple[str, Probe]]] = defaultdict(list)
    for name, system in report.systems.items():
        for probe in sorted(system.probes, key=lambda probe: (probe.language, -probe.level)):
            rows[probe.kind].append((name, probe))
    return rows
