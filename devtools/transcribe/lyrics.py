"""Lyrics files around a transcript: what is not sung goes back into its place, and how far lines moved."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, quantiles

from backend.transcript.lyrics.lrc import LyricLine, parse_line
from backend.transcript.lyrics.sung_lines import LINE_BREAK
from backend.wire.backend_pb2 import TranscriptResult, TranscriptSegment
from devtools.transcribe.formats import minutes, word_tagged

_OFFSET = re.compile(r"\s*\[offset:\s*([+-]?\d+)\s*\]\s*", re.IGNORECASE)
_METADATA = re.compile(r"\s*\[(?:ar|ti|al|au|by|re|ve|lr|la|lang|length|offset|tool|#)\s*:[^\]]*\]\s*", re.IGNORECASE)
_LENGTH_OR_OFFSET = re.compile(r"\s*\[(?:length|offset)\s*:", re.IGNORECASE)


@dataclass(frozen=True)
class Row:
    """A line of a lyrics file: as it was `given`, its parts, and its old time in seconds, if it has one."""

    given: str
    parts: LyricLine
    old_s: float | None

    @property
    def is_sung(self) -> bool:
        return bool(self.parts.text.strip())


@dataclass(frozen=True)
class Movements:
    """How far the lines of an old LRC moved, in seconds."""

    lines: int
    mean_s: float
    p95_s: float
    worst_s: float
    worst_line: str

    def __str__(self) -> str:
        return (
            f"{self.lines} lines moved by {self.mean_s:.2f} s on average, {self.p95_s:.2f} s at the 95th percentile, "
            f"{self.worst_s:.2f} s at most ({self.worst_line})"
        )


def read_rows(text: str) -> list[Row]:
    """The lines of a text. An LRC's [offset:...] counts: positive milliseconds are earlier."""
    given = LINE_BREAK.split(text)
    offset_s = next((int(found[1]) / 1000 for line in given if (found := _OFFSET.fullmatch(line))), 0.0)
    rows = []
    for line in given:
        parts = parse_line(line)
        rows.append(Row(line, parts, max(parts.times_s[0] - offset_s, 0.0) if parts.times_s else None))
    return rows


def written_out(rows: Sequence[Row]) -> list[Row]:
    """The rows, each line with several time tags once for each of them, all in the order of their times.

    Lines without a tag stay behind the one before them. A file without such lines stays as it is.
    """
    if all(len(row.parts.times_s) <= 1 for row in rows):
        return [*rows]
    timed: list[tuple[float, int, Row]] = []
    at_s = -1.0
    for number, row in enumerate(rows):
        first, *others = row.parts.times_s or (at_s,)
        at_s = first if row.parts.times_s else at_s
        shift_s = (row.old_s or 0.0) - first if row.old_s is not None else 0.0
        timed.append((first, number, replace(row, old_s=row.old_s)))
        timed += [(again, number, replace(row, old_s=max(again + shift_s, 0.0))) for again in others]
    return [row for _, _, row in sorted(timed, key=lambda item: item[:2])]


def rendered(rows: Sequence[Row], result: TranscriptResult, *, with_words: bool) -> str:
    """The lyrics file with new times: metadata first, headings at the time of the next line, empty lines as they were.

    `with_words`: the times of words as well (the enhanced format, A2).
    """
    segments = iter(result.segments)
    by_row = {number: next(segments) for number, row in enumerate(rows) if row.is_sung}
    lines = []
    for number, row in enumerate(rows):
        if segment := by_row.get(number):
            shown = word_tagged(segment) if with_words else segment.text.strip()
            sung = " ".join(filter(None, (row.parts.before, shown, row.parts.after)))
            lines.append(f"[{minutes(segment.start)}] {sung}")
        elif _METADATA.fullmatch(row.given):
            if not _LENGTH_OR_OFFSET.match(row.given):  # the new times have no offset
                lines.append(row.given.strip())
        elif row.parts.before:
            following = next((by_row[later] for later in range(number, len(rows)) if later in by_row), None)
            tag = f"[{minutes(following.start)}] " if following else ""
            lines.append(f"{tag}{row.parts.before}")
        else:
            lines.append("")
    return "".join(f"{line}\n" for line in lines)


def movements(rows: Sequence[Row], result: TranscriptResult) -> Movements | None:
    """How far the lines that had a time moved; None where none had one."""
    sung = [row for row in rows if row.is_sung]
    if len(sung) != len(result.segments):  # sentences of a text without line breaks
        return None
    moved = [*_moved(sung, result.segments)]
    if not moved:
        return None
    by_s = sorted(seconds for seconds, _ in moved)
    worst_s, worst = max(moved, key=lambda each: each[0])
    p95_s = quantiles(by_s, n=20, method="inclusive")[-1] if len(by_s) > 1 else by_s[0]
    return Movements(len(by_s), fmean(by_s), p95_s, worst_s, worst)


def _moved(sung: Sequence[Row], segments: Sequence[TranscriptSegment]) -> Iterator[tuple[float, str]]:
    for row, segment in zip(sung, segments, strict=True):
        if row.old_s is not None:
            yield abs(segment.start / 1e9 - row.old_s), segment.text.strip()
