"""The two plots of the page, as SVG: how far word boundaries are off, and word errors by recording."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from devtools.eval.markup import Markup, joined, tag
from devtools.eval.report import Recording, Report
from devtools.eval.scoring import CLOSE_S, Scored

WIDTH, HEIGHT = 580.0, 340.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 14.0, 28.0, 46.0
STEPS = 200  # of a curve
ROW = 19.0
MOST_ROWS = 40
_QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)


def boundary_errors(report: Report) -> Markup:
    """The share of word boundaries (up) that are off by no more than so much (to the right, logarithmic)."""
    errors = {name: _errors(report, name) for name in report.systems}
    errors = {name: found for name, found in errors.items() if found.size}
    if not errors:
        return Markup("")
    decades = max(3, math.ceil(math.log10(max(float(found.max()) for found in errors.values()) * 1000)))

    def x(seconds: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log10(max(seconds * 1000, 1.0)) / decades

    def y(share: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - share)

    grid = [_line(LEFT, y(s), WIDTH - RIGHT, y(s)) for s in _QUARTERS]
    grid += [_label(LEFT - 8, y(s) + 4, f"{100 * s:.0f} %", "end") for s in _QUARTERS]
    for power in range(decades + 1):
        at = x(10**power / 1000)
        grid.append(_line(at, TOP, at, HEIGHT - BOTTOM))
        grid.append(_label(at, HEIGHT - BOTTOM + 18, _time(10**power), "middle"))
    close = (
        _line(x(CLOSE_S), TOP, x(CLOSE_S), HEIGHT - BOTTOM, "close"),
        _label(x(CLOSE_S) + 6, y(0) - 8, "80 ms, one time class of the aligner", "start"),
    )
    titles = (
        _label(0, 11, "share of word boundaries", "start"),
        _label((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, "error of a word's start or end (ms, s; logarithmic)", "middle"),
    )
    curves = []
    for name, found in reversed(errors.items()):  # the backend on top
        shares = np.linspace(0, 1, min(STEPS, found.size) + 1)
        quantiles = zip(shares, np.quantile(found, shares), strict=True)
        points = " ".join(f"{x(float(q)):.1f},{y(float(s)):.1f}" for s, q in quantiles)
        curves.append(tag("polyline", points=points, class_=f"curve {name}"))
        for share in (0.5, 0.95):
            q = float(np.quantile(found, share))
            tip = f"{name}: {100 * share:.0f} % of {found.size} boundaries are off by at most {_time(q * 1000)}"
            curves.append(tag("circle", cx=x(q), cy=y(share), r=4.5, class_=f"dot {name}", data_tip=tip))
    return _svg(HEIGHT, *grid, *close, *titles, *curves)


def word_errors(report: Report) -> Markup:
    """WER of each recording with speech, worst first."""
    rows = [r for r in report.worst_first if r.entry.is_speech][:MOST_ROWS]
    if not rows:
        return Markup("")
    left, upper, bottom = 150.0, 12.0, 42.0
    highest = max(_share(scored) for r in rows for scored in r.scored.values())
    top = next(t for t in (0.05, 0.1, 0.2, 0.5, 1.0, math.ceil(highest)) if t >= highest)
    height = upper + ROW * len(rows) + bottom

    def x(share: float) -> float:
        return left + (WIDTH - left - 22) * share / top

    parts: list[str] = []
    for share in (top * quarter for quarter in _QUARTERS):
        parts.append(_line(x(share), upper, x(share), height - bottom))
        parts.append(_label(x(share), height - bottom + 17, f"{100 * share:.3g} %", "middle"))
    for i, recording in enumerate(rows):
        parts.append(_row(recording, upper + ROW * (i + 0.5), x))
    parts.append(_label((left + WIDTH) / 2, height - 4, "word error rate (% of the words)", "middle"))
    return _svg(height, *parts)


def _row(recording: Recording, y: float, x: Callable[[float], float]) -> Markup:
    """One recording: a dot for each system, a line between two that differ."""
    shares = {name: _share(scored) for name, scored in recording.scored.items()}
    parts: list[str] = [_label(140, y + 4, _short(recording.entry.id), "end", "row")]
    if len(set(shares.values())) > 1:
        parts.append(_line(x(min(shares.values())), y, x(max(shares.values())), y, "span"))
    for i, (name, share) in reversed(list(enumerate(shares.items()))):
        words = recording.scored[name].score.words
        tip = f"{recording.entry.id}\n{name}: {words.errors} of {words.units} words wrong, {100 * share:.1f} %"
        beside = 9.0 * i if len(set(shares.values())) < len(shares) else 0.0  # equal dots stand side by side
        parts.append(tag("circle", cx=x(share) + beside, cy=y, r=4.5, class_=f"dot {name}", data_tip=tip))
    return joined(*parts)


def _svg(height: float, *parts: str) -> Markup:
    return tag("svg", *parts, viewBox=f"0 0 {WIDTH:.0f} {height:.0f}", role="img")


def _line(x1: float, y1: float, x2: float, y2: float, class_: str = "grid") -> Markup:
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def _label(x: float, y: float, text: str, anchor: str, class_: str | None = None) -> Markup:
    return tag("text", text, x=x, y=y, text_anchor=anchor, class_=class_)


def _short(name: str) -> str:
    return name if len(name) <= 20 else f"…{name[-19:]}"


def _errors(report: Report, name: str) -> NDArray[np.float64]:
    return np.array([e for r in report.recordings for e in r.scored[name].score.edge_errors_s])


def _share(scored: Scored) -> float:
    words = scored.score.words
    return words.errors / words.units if words.units else 0.0


def _time(ms: float) -> str:
    return f"{ms:.3g} ms" if ms < 999.5 else f"{ms / 1000:.6g} s"
