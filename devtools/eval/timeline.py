"""A recording on a time axis: rows of at most 15 s, each a waveform and one lane of words for every system.

All lanes of a row have the same scale, so a misplaced word is seen before it is read. layout.html draws them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from devtools.eval.hypotheses import Word
from devtools.eval.report import PEAKS_PER_S, Recording
from devtools.eval.scoring import CLOSE_S

ROW_S = 15.0
LEAST_S = 5.0  # the scale of shorter rows; words would grow out of proportion
LEFT, WIDTH = 62.0, 1200.0
WAVE_HEIGHT = 46.0


@dataclass(frozen=True)
class PlacedWord:
    """A word of a lane. `errors_s`: of its start and end against the reference's word `match`, None without one."""

    word: Word
    match: int | None
    errors_s: tuple[float, float] | None = None

    @property
    def state(self) -> str:
        if self.match is None:
            return "wrong"
        return "off" if self.errors_s and max(map(abs, self.errors_s)) > CLOSE_S else ""

    def tip(self, lane: str) -> str:
        tip = f"{lane}: {self.word.text}\n{self.word.start_s:.3f} s to {self.word.end_s:.3f} s"
        if self.errors_s:
            return tip + "\nstart {:+.0f} ms, end {:+.0f} ms".format(*(1000 * error for error in self.errors_s))
        return tip if self.match is not None else tip + "\nmatches no word of the truth"


@dataclass(frozen=True)
class Row:
    """A stretch of time, drawn as if it were `scale_s` long."""

    start_s: float
    end_s: float
    scale_s: float

    def x(self, seconds: float) -> float:
        return round(LEFT + (WIDTH - LEFT) * (seconds - self.start_s) / self.scale_s, 2)

    def box(self, word: Word) -> tuple[float, float]:
        """Left edge and width of the part of a word in this row; a word of zero length is 2 wide."""
        left = self.x(max(word.start_s, self.start_s))
        return left, round(max(self.x(min(word.end_s, self.end_s)) - left, 2.0), 2)

    def holds(self, word: Word) -> bool:
        return word.end_s >= self.start_s and word.start_s < self.end_s

    def wave(self, recording: Recording) -> str:
        """The points of a polygon: the envelope, mirrored at its middle."""
        first, last = round(self.start_s * PEAKS_PER_S), round(self.end_s * PEAKS_PER_S) + 1
        half = [
            (min(self.x(number / PEAKS_PER_S), WIDTH), max(float(peak), 0.01) * (WAVE_HEIGHT / 2 - 1))
            for number, peak in enumerate(recording.envelope.peaks[first:last], first)
        ]
        mirrored = half + [(x, -height) for x, height in reversed(half)]
        return " ".join(f"{x:.1f},{WAVE_HEIGHT / 2 - height:.1f}" for x, height in mirrored)


def rows(duration_s: float) -> list[Row]:
    """As few rows of equal length as ROW_S allows."""
    count = math.ceil(duration_s / ROW_S)
    span_s = duration_s / max(count, 1)
    return [Row(i * span_s, (i + 1) * span_s, max(span_s, LEAST_S)) for i in range(count)]


def lanes(recording: Recording) -> dict[str, list[PlacedWord]]:
    """The reference's words, where it has times, and those of the systems that gave any."""
    reference = recording.entry.words
    found = {"truth": [PlacedWord(word, i) for i, word in enumerate(reference)]}
    for name, scored in recording.scored.items():
        words = scored.hypothesis.words
        # without a reference there is nothing to be wrong against
        found[name] = [PlacedWord(word, None if reference else j) for j, word in enumerate(words)]
        for i, j in scored.score.matches:
            found[name][j] = PlacedWord(words[j], i, words[j].edge_errors_s(reference[i]))
    return {name: lane for name, lane in found.items() if lane}
