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

from devtools.eval.report import Report
from devtools.eval.scoring import CLOSE_S, Scored

MOST_ROWS = 40
STEPS = 200  # of a curve
QUARTERS = np.linspace(0, 1, 5)
VARIABLES = ("backend", "package", "ink", "quiet", "rule", "card")
COLOURS = {name: f"#fed0c{number}" for number, name in enumerate(VARIABLES)}  # `svg` puts the variables in place
QUIET = COLOURS["quiet"]
STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "charts", "font.size": 12, "text.parse_math": False, "text.color": QUIET,
    "axes.labelcolor": QUIET, "axes.edgecolor": "none", "axes.axisbelow": True, "axes.grid": True,
    "grid.color": COLOURS["rule"], "xtick.color": QUIET, "xtick.major.size": 0, "xtick.major.pad": 9,
    "ytick.color": QUIET, "ytick.major.size": 0, "ytick.major.pad": 9, "lines.linewidth": 2.4, "lines.markersize": 9,
    "lines.markeredgecolor": COLOURS["card"], "lines.markeredgewidth": 1.5,
}  # fmt: skip


def boundary_errors(report: Report) -> Markup:
    """The share of word boundaries (up) that are off by no more than so much (to the right, logarithmic)."""
    errors_ms = {
        name: np.maximum(1000 * np.concatenate([r.scored[name].score.edge_errors_s for r in report.recordings]), 1)
        for name in report.systems
        if any(r.scored[name].score.edge_errors_s for r in report.recordings)
    }
    if not errors_ms:
        return Markup("")
    highest = max(float(errors.max()) for errors in errors_ms.values())
    powers = [10**power for power in range(max(3, math.ceil(math.log10(highest))) + 1)]
    with matplotlib.rc_context(STYLE):
        axes = new_axes(340)
        axes.set_title("share of word boundaries", loc="left", fontsize=12)
        axes.set_xscale("log")
        axes.set(xlim=(1, powers[-1]), ylim=(0, 1), xlabel="error of a word's start or end (ms, s; logarithmic)")
        axes.set_xticks(powers, map(_time, powers))
        axes.set_yticks(QUARTERS, [f"{100 * share:.0f} %" for share in QUARTERS])
        axes.minorticks_off()
        axes.axvline(1000 * CLOSE_S, color=COLOURS["ink"], linewidth=1, linestyle="--", alpha=0.55)
        axes.annotate("80 ms, one time class of the aligner", (1000 * CLOSE_S, 0), (6, 8), textcoords="offset points")
        for name, errors in reversed(errors_ms.items()):  # the backend on top
            shares = np.linspace(0, 1, min(STEPS, errors.size) + 1)
            axes.plot(np.quantile(errors, shares), shares, color=COLOURS[name], gid=f"curve {name}|")
            for share in (0.5, 0.95):
                limit = float(np.quantile(errors, share))
                off = f"{100 * share:.0f} % of {errors.size} boundaries are off by at most {_time(limit)}"
                _dot(axes, limit, share, name, f"{name}: {off}")
        return svg(axes)


def word_errors(report: Report) -> Markup:
    """WER of each recording with speech, worst first: a dot for each system, a line between two that differ."""
    recordings = [r for r in report.worst_first if r.entry.is_speech][:MOST_ROWS]
    if not recordings:
        return Markup("")
    highest = max(_wer(scored) for r in recordings for scored in r.scored.values())
    top = next(limit for limit in (0.05, 0.1, 0.2, 0.5, 1.0, math.ceil(highest)) if limit >= highest)
    names = [r.entry.id if len(r.entry.id) <= 20 else f"…{r.entry.id[-19:]}" for r in recordings]
    with matplotlib.rc_context(STYLE):
        axes = new_axes(19 * len(names) + 54)
        axes.set(xlim=(0, top), ylim=(len(names) - 0.5, -0.5), xlabel="word error rate (% of the words)")
        axes.set_xticks(top * QUARTERS, [f"{100 * share:.3g} %" for share in top * QUARTERS])
        axes.set_yticks(range(len(names)), names, color=COLOURS["ink"])
        axes.grid(visible=False, axis="y")
        for y, recording in enumerate(recordings):
            rates = [_wer(scored) for scored in recording.scored.values()]
            axes.plot(rates, [y] * len(rates), color=QUIET, linewidth=1.5, alpha=0.5)
            beside = 0.018 * top if len(set(rates)) < len(rates) else 0.0  # equal dots stand side by side
            for i, (name, scored) in reversed([*enumerate(recording.scored.items())]):
                words, rate = scored.score.words, rates[i]
                wrong = f"{words.errors} of {words.units} words wrong, {100 * rate:.1f} %"
                _dot(axes, rate + beside * i, y, name, f"{recording.entry.id}\n{name}: {wrong}")
        return svg(axes)


def new_axes(height: float) -> Axes:
    """`height` in points, the unit of matplotlib's SVG."""
    return Figure(figsize=(580 / 72, height / 72), layout="constrained").subplots()


def _dot(axes: Axes, x: float, y: float, name: str, tip: str) -> None:
    axes.plot([x], [y], "o", color=COLOURS[name], gid=f"dot {name}|{tip}")


def svg(axes: Axes) -> Markup:
    """Without what an inline SVG does not need: XML declaration, namespaces and clips (URLs), style sheet, ids."""
    for artist in axes.findobj():
        artist.set_clip_on(False)
    figure, written = axes.get_figure(root=True), io.StringIO()
    assert figure
    nameless: Any = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # the browser's fonts have it
        figure.savefig(written, format="svg", transparent=True, metadata=nameless)
    svg = written.getvalue().partition("<svg")[2]
    svg = re.sub(r'<defs>\s*<style.*?</defs>| xmlns(:xlink)?="[^"]*"| id="\w+_\d+"', "", svg, flags=re.DOTALL)
    svg = re.sub(r"""id=(["'])([a-z ]+)\|(.*?)\1""", r"class=\1\2\1 data-tip=\1\3\1", svg, flags=re.DOTALL)
    for name, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    return Markup("<svg" + svg.replace(' data-tip=""', ""))


def _wer(scored: Scored) -> float:
    return scored.score.words.rate or 0.0


def _time(ms: float) -> str:
    return f"{ms:.3g} ms" if ms < 999.5 else f"{ms / 1000:.6g} s"
