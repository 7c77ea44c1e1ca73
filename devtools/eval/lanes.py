"""A recording drawn: its waveform in rows of at most 15 s, and under it the words of the truth and of each system.

Every lane has the same scale, and thin lines carry the truth's boundaries down through all of them, so a misplaced word
is seen before it is read.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from devtools.eval.answers import Word
from devtools.eval.markup import Markup, tag
from devtools.eval.report import PEAKS_PER_S, Recording
from devtools.eval.scoring import CLOSE_S

ROW_S = 15.0
LEAST_S = 5.0  # a shorter recording does not fill its row: words would grow out of proportion
GUTTER, WIDTH = 62.0, 1200.0
WAVE, LANE, GAP, AXIS = 46.0, 20.0, 4.0, 18.0
TRUTH = "truth"


@dataclass(frozen=True)
class Placed:
    """A word of a lane. `errors_s`: of its start and end against the truth's word `of`, for those that match one."""

    word: Word
    of: int | None
    errors_s: tuple[float, float] | None = None

    @property
    def state(self) -> str:
        if self.of is None:
            return "wrong"
        return "off" if self.errors_s and max(map(abs, self.errors_s)) > CLOSE_S else ""


@dataclass(frozen=True)
class Row:
    """A stretch of time and how it is laid out."""

    start_s: float
    end_s: float
    span_s: float

    def x(self, seconds: float) -> float:
        return GUTTER + (WIDTH - GUTTER) * (seconds - self.start_s) / self.span_s

    def holds(self, word: Word) -> bool:
        return word.end_s >= self.start_s and word.start_s < self.end_s


def drawn(recording: Recording) -> Markup:
    """The rows, in one element; empty where the recording could not be read."""
    lanes = lanes_of(recording)
    return tag("div", *(_row(recording, row, lanes) for row in rows(recording.outline.duration_s)), class_="rows")


def rows(duration_s: float) -> list[Row]:
    """Rows of equal length, 15 s at most, and as few as that allows."""
    count = math.ceil(duration_s / ROW_S)
    span = duration_s / count if count else 0.0
    return [Row(i * span, (i + 1) * span, max(span, LEAST_S)) for i in range(count)]


def lanes_of(recording: Recording) -> dict[str, list[Placed]]:
    """The words of each lane: the truth's, where it has times, and then those of the systems that gave any."""
    truth = recording.entry.words
    lanes = {TRUTH: [Placed(word, i) for i, word in enumerate(truth)]}
    for name, scored in recording.scored.items():
        of = {heard: i for i, heard in scored.score.matches}
        lanes[name] = [_placed(word, of.get(j), truth) for j, word in enumerate(scored.answer.words)]
    if not truth:  # nothing to be right or wrong against
        lanes = {name: [Placed(p.word, i) for i, p in enumerate(lane)] for name, lane in lanes.items()}
    return {name: lane for name, lane in lanes.items() if lane}


def _placed(word: Word, of: int | None, truth: Sequence[Word]) -> Placed:
    if of is None:
        return Placed(word, None)
    return Placed(word, of, (word.start_s - truth[of].start_s, word.end_s - truth[of].end_s))


def _row(recording: Recording, row: Row, lanes: Mapping[str, Sequence[Placed]]) -> Markup:
    bottom = WAVE + len(lanes) * (LANE + GAP)
    parts = [_wave(recording, row), *_axis(row, bottom)]
    for placed in lanes.get(TRUTH, ()):
        parts += [
            tag("line", x1=row.x(at), x2=row.x(at), y1=0, y2=bottom, class_="guide")
            for at in placed.word[1:]
            if row.start_s <= at <= row.end_s
        ]
    for number, (name, lane) in enumerate(lanes.items()):
        y = WAVE + GAP + number * (LANE + GAP)
        parts.append(tag("text", name, x=0, y=y + 14, class_=f"{name} lane"))
        parts += [_word(placed, row, y, name) for placed in lane if row.holds(placed.word)]
    return tag("svg", *parts, viewBox=f"0 0 {WIDTH:.0f} {bottom + AXIS:.0f}", role="img")


def _wave(recording: Recording, row: Row) -> Markup:
    """The envelope, mirrored at its middle."""
    first = round(row.start_s * PEAKS_PER_S)
    peaks = recording.outline.peaks[first : round(row.end_s * PEAKS_PER_S) + 1]
    points = [(row.x((first + i) / PEAKS_PER_S), float(peak)) for i, peak in enumerate(peaks)]
    points = [(min(x, WIDTH), max(peak, 0.01) * (WAVE / 2 - 1)) for x, peak in points]
    upper = [f"{x:.1f},{WAVE / 2 - high:.1f}" for x, high in points]
    lower = [f"{x:.1f},{WAVE / 2 + high:.1f}" for x, high in reversed(points)]
    return tag("polygon", points=" ".join(upper + lower), class_="wave")


def _axis(row: Row, y: float) -> Iterator[Markup]:
    yield tag("line", x1=GUTTER, x2=row.x(row.end_s), y1=y + 3, y2=y + 3, class_="base")
    for second in range(math.ceil(row.start_s), math.floor(row.end_s) + 1):
        x = row.x(second)
        yield tag("line", x1=x, x2=x, y1=y + 3, y2=y + 6, class_="base")
        yield tag("text", f"{second} s", x=min(x, WIDTH - 12), y=y + AXIS - 1, text_anchor="middle")


def _word(placed: Placed, row: Row, y: float, lane: str) -> Markup:
    """A box as long as its word, its text cut off where it does not fit; a word of no length is 2 wide."""
    word = placed.word
    left, right = row.x(max(word.start_s, row.start_s)), row.x(min(word.end_s, row.end_s))
    width = max(right - left, 2.0)
    box = tag("rect", x=0.5, y=0.5, width=max(width - 1, 1.0), height=LANE - 1, rx=3)
    text = tag("text", word.text, x=3, y=14, **_condensed(word.text, width - 6))
    return tag(
        "svg", box, text, x=left, y=y, width=width, height=LANE, overflow="hidden",
        class_=f"word {lane} {placed.state}".rstrip(), data_tip=_tip(placed, lane),
        data_w=None if placed.of is None else str(placed.of),
    )  # fmt: skip


def _condensed(text: str, room: float) -> dict[str, str | float]:
    """Letters pressed together where a text would not fit otherwise; beyond two thirds nobody could read them."""
    usual = sum(_letter(c) for c in text)
    return {"textLength": max(room, usual * 0.66), "lengthAdjust": "spacingAndGlyphs"} if room < usual else {}


def _letter(character: str) -> float:
    """About its width at 12 px, rather too little: fonts differ, and no text shall be stretched."""
    if unicodedata.east_asian_width(character) in "WF":
        return 12.0
    return 3.6 if character in "fijlrtI.,:;'!" else 9.0 if character in "mwMW" else 6.6


def _tip(placed: Placed, lane: str) -> str:
    word = placed.word
    lines = [f"{lane}: {word.text}", f"{word.start_s:.3f} s to {word.end_s:.3f} s"]
    if placed.errors_s is not None:
        start, end = (1000 * error for error in placed.errors_s)
        lines.append(f"start {start:+.0f} ms, end {end:+.0f} ms")
    elif placed.of is None:
        lines.append("matches no word of the truth")
    return "\n".join(lines)
