"""The two charts of the page as inline SVG, by matplotlib: errors of word boundaries, and WER by recording.

Colours become variables of style.css, so that the charts follow its light and dark style. An artist's gid,
"CLASS|TIP", becomes the attributes class and data-tip.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from devtools.eval.report import Report
from devtools.eval.scoring import CLOSE_S, Scored

WIDTH = 580.0  # in points, the unit of matplotlib's SVG
ROW_HEIGHT = 19.0
MOST_ROWS = 40
STEPS = 200  # of a curve
QUARTERS = np.linspace(0, 1, 5)
BACKEND, PACKAGE, INK, QUIET, RULE, CARD = (f"#fed0c{i}" for i in range(1, 7))  # replaced by variables of these names
VARIABLES = {BACKEND: "backend", PACKAGE: "package", INK: "ink", QUIET: "quiet", RULE: "rule", CARD: "card"}
COLOURS = {"backend": BACKEND, "package": PACKAGE}
STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "charts", "font.size": 12, "text.parse_math": False, "text.color": QUIET,
    "axes.labelcolor": QUIET, "axes.labelpad": 7, "axes.edgecolor": "none", "axes.axisbelow": True,
    "grid.color": RULE, "grid.linewidth": 1, "xtick.labelcolor": QUIET, "xtick.major.size": 0, "xtick.major.pad": 9,
    "ytick.labelcolor": QUIET, "ytick.major.size": 0, "ytick.major.pad": 8, "lines.linewidth": 2.4,
    "lines.markersize": 9, "lines.markeredgecolor": CARD, "lines.markeredgewidth": 1.5,
}  # fmt: skip


def boundary_errors(report: Report) -> Markup:
    """The share of word boundaries (up) that are off by no more than so much (to the right, logarithmic)."""
    errors_ms = {
        name: 1000 * np.array([error for r in report.recordings for error in r.scored[name].score.edge_errors_s])
        for name in report.systems
    }
    errors_ms = {name: errors for name, errors in errors_ms.items() if errors.size}
    if not errors_ms:
        return Markup("")
    decades = max(3, math.ceil(math.log10(max(1.0, *(float(errors.max()) for errors in errors_ms.values())))))
    powers = [10**power for power in range(decades + 1)]
    with matplotlib.rc_context(STYLE):
        axes = _axes(340, left=52, right=14, top=28, bottom=46)
        axes.set_xscale("log")
        axes.set(xlim=(1, powers[-1]), ylim=(0, 1), xlabel="error of a word's start or end (ms, s; logarithmic)")
        axes.set_xticks(powers, map(_time, powers))
        axes.set_yticks(QUARTERS, [f"{share:.0%}".replace("%", " %") for share in QUARTERS])
        axes.minorticks_off()
        axes.annotate("share of word boundaries", (0, 1), (-52, 17), "axes fraction", "offset points")
        axes.axvline(1000 * CLOSE_S, color=INK, linewidth=1, linestyle=(0, (4, 4)), alpha=0.55, clip_on=False)
        axes.annotate("80 ms, one time class of the aligner", (1000 * CLOSE_S, 0), (6, 8), textcoords="offset points")
        for name, errors in reversed(errors_ms.items()):  # the backend on top
            shares = np.linspace(0, 1, min(STEPS, errors.size) + 1)
            quantiles = np.maximum(np.quantile(errors, shares), 1)
            axes.plot(quantiles, shares, color=COLOURS[name], clip_on=False, gid=f"curve {name}|")
            for share in (0.5, 0.95):
                limit = float(np.quantile(errors, share))
                tip = f"{name}: {share:.0%} of {errors.size} boundaries are off by at most {_time(limit)}"
                _dot(axes, max(limit, 1), share, name, tip.replace("%", " %"))
        return _svg(axes)


def word_errors(report: Report) -> Markup:
    """WER of each recording with speech, worst first: a dot for each system, a line between two that differ."""
    recordings = [r for r in report.worst_first if r.entry.is_speech][:MOST_ROWS]
    if not recordings:
        return Markup("")
    highest = max(_wer(scored) for r in recordings for scored in r.scored.values())
    top = next(limit for limit in (0.05, 0.1, 0.2, 0.5, 1.0, math.ceil(highest)) if limit >= highest)
    names = [r.entry.id if len(r.entry.id) <= 20 else f"…{r.entry.id[-19:]}" for r in recordings]
    with matplotlib.rc_context(STYLE | {"ytick.labelcolor": INK}):
        axes = _axes(ROW_HEIGHT * len(names) + 54, left=150, right=22, top=12, bottom=42)
        axes.set(xlim=(0, top), ylim=(len(names) - 0.5, -0.5), xlabel="word error rate (% of the words)")
        axes.set_xticks(top * QUARTERS, [f"{100 * share:.3g} %" for share in top * QUARTERS])
        axes.set_yticks(range(len(names)), names)
        axes.grid(visible=False, axis="y")
        for y, recording in enumerate(recordings):
            rates = {name: _wer(scored) for name, scored in recording.scored.items()}
            axes.plot(list(rates.values()), [y] * len(rates), color=QUIET, linewidth=1.5, alpha=0.5, clip_on=False)
            beside = 9 if len(set(rates.values())) < len(rates) else 0  # equal dots stand side by side
            for i, (name, rate) in reversed(list(enumerate(rates.items()))):
                words = recording.scored[name].score.words
                tip = f"{recording.entry.id}\n{name}: {words.errors} of {words.units} words wrong, {100 * rate:.1f} %"
                _dot(axes, rate, y, name, tip, shift=beside * i)
        return _svg(axes)


def _axes(height: float, left: float, right: float, top: float, bottom: float) -> Axes:
    """Axes in margins; all in points."""
    box = (left / WIDTH, bottom / height, 1 - (left + right) / WIDTH, 1 - (top + bottom) / height)
    axes = Figure(figsize=(WIDTH / 72, height / 72)).add_axes(box)
    axes.grid(visible=True, clip_on=False)
    return axes


def _dot(axes: Axes, x: float, y: float, name: str, tip: str, shift: float = 0) -> None:
    """`shift`: to the right, in points."""
    moved = axes.transData + ScaledTranslation(shift / 72, 0, axes.figure.dpi_scale_trans)
    axes.plot([x], [y], "o", color=COLOURS[name], clip_on=False, transform=moved, gid=f"dot {name}|{tip}")


def _svg(axes: Axes) -> Markup:
    """Without what an inline SVG does not need: XML declaration, namespaces (they are URLs), style sheet, ids."""
    figure, written = axes.get_figure(root=True), io.StringIO()
    assert figure
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # the browser's fonts have it
        figure.savefig(
            written, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    svg = written.getvalue()
    svg = re.sub(
        r'<defs>\s*<style.*?</defs>| xmlns(:xlink)?="[^"]*"| id="\w+_\d+"', "", svg[svg.index("<svg") :], flags=re.S
    )
    svg = re.sub(r"""id=(["'])([a-z ]+)\|(.*?)\1""", r"class=\1\2\1 data-tip=\1\3\1", svg, flags=re.DOTALL)
    svg = svg.replace(' data-tip=""', "")
    return Markup(re.sub("#fed0c[1-6]", lambda found: f"var(--{VARIABLES[found[0]]})", svg))


def _wer(scored: Scored) -> float:
    return scored.score.words.rate or 0.0


def _time(ms: float) -> str:
    return f"{ms:.3g} ms" if ms < 999.5 else f"{ms / 1000:.6g} s"
