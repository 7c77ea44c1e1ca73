"""The times of a slice's words: those of the heard words that they are, and between these the aligner's.

An aligner has to put a word that is not spoken somewhere. So times between two heard words count only if they lie where
other words were heard instead, or, where none were, between the two. Otherwise the words are spread there.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from backend.thresholds import HOLE_TOLERANCE_S
from backend.transcript.lyrics.slices import HeardToken, TextSlice
from backend.transcript.lyrics.sung_lines import TextToken
from backend.transcript.timing import Times, fill

Unit = tuple[str, float, float]


def unit_times(
    piece: TextSlice,
    tokens: Sequence[TextToken],
    heard: Sequence[HeardToken],
    aligned: Sequence[Times] | None,
    begin_s: float,
    end_s: float,
) -> list[Unit]:
    """The slice's tokens with their times inside [begin_s, end_s], in seconds of the recording.

    `aligned`: what the aligner says, one for each token; None where it says nothing.
    """
    units: list[Unit] = []
    members = list(enumerate(tokens[piece.first : piece.after]))
    for is_hole, group in groupby(members, key=lambda member: piece.heard_at[member[0]] is None):
        numbers = [number for number, _ in group]
        if is_hole:
            times = _hole_times(piece, tokens, heard, aligned, numbers, (begin_s, end_s))
        else:
            times = [(heard[at].start_s, heard[at].end_s) for n in numbers if (at := piece.heard_at[n]) is not None]
        units += [(members[number][1].key, *time) for number, time in zip(numbers, times, strict=True)]
    return units


def _hole_times(
    piece: TextSlice,
    tokens: Sequence[TextToken],
    heard: Sequence[HeardToken],
    aligned: Sequence[Times] | None,
    numbers: Sequence[int],
    limits: Times,
) -> list[Times]:
    """The times of the tokens `numbers`, which lie between two heard ones or at an edge of the slice."""
    before = piece.heard_at[numbers[0] - 1] if numbers[0] else None
    after = piece.heard_at[numbers[-1] + 1] if numbers[-1] + 1 < len(piece.heard_at) else None
    first = piece.heard_first if before is None else before + 1
    last = piece.heard_after if after is None else after
    begin_s = limits[0] if before is None else heard[before].end_s
    end_s = limits[1] if after is None else heard[after].start_s
    instead = heard[first:last]
    span = (instead[0].start_s, instead[-1].end_s) if instead else (begin_s, end_s)
    if aligned is not None:
        times = [aligned[number] for number in numbers]
        if times[0][0] >= span[0] - HOLE_TOLERANCE_S and times[-1][1] <= span[1] + HOLE_TOLERANCE_S:
            return [(min(max(start, begin_s), end_s), min(max(end, begin_s), end_s)) for start, end in times]
    weights = [float(len(tokens[piece.first + number].key)) for number in numbers]
    return fill([None] * len(numbers), weights, *span)
