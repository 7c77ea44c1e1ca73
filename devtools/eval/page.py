"""One self-contained page of a report: figures, charts, and every recording with its words below its waveform.

The page loads nothing but, when asked to play it, a recording from where it lies: style and script are within it.
layout.html is a jinja2 template with autoescape, so whatever
comes from a manifest or a model is text.
"""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from backend.languages import NAMES
from devtools.eval import charts, table, timeline, word_diff
from devtools.eval.compare import paired, verdict
from devtools.eval.live import lane_figures
from devtools.eval.report import Probe, Recording, Report

SHOWN = 100  # recordings; more make a page that no browser scrolls
UNFOLDED = 20  # of them
_MODULES = (charts, lane_figures, paired, table, timeline, verdict, word_diff)  # that the template calls


def html(report: Report) -> str:
    """The whole document."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    modules = {module.__name__.rpartition(".")[2]: module for module in _MODULES}
    environment.globals.update(modules, languages=NAMES, sound_of=sound_of)
    shown = report.worst_first[:SHOWN]
    return environment.get_template("layout.html").render(
        report=report, shown=shown, unfolded=UNFOLDED, probes=probes_by_kind(report)
    )


def sound_of(report: Report, recording: Recording) -> str:
    """A URL relative to the page, so that it holds for all who have the same folders."""
    return quote(Path(os.path.relpath(recording.entry.audio, report.folder)).as_posix())


def probes_by_kind(report: Report) -> dict[str, list[tuple[str, Probe]]]:
    """Each kind of sound with its cells, system by system, detected before forced, loud before quiet."""
    rows: dict[str, list[tuple[str, Probe]]] = defaultdict(list)
    for name, system in report.systems.items():
        for probe in sorted(system.probes, key=lambda probe: (probe.language, -probe.level)):
            rows[probe.kind].append((name, probe))
    return rows
