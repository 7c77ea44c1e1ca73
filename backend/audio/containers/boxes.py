"""Boxes of MP4 and MOV (ISO 14496-12) that FFmpeg reads and does not tell: edits, and how much sound the file holds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import accumulate
from typing import NamedTuple

from backend.audio.containers.byte_reader import integer

_MAX_BOXES = 100_000  # see extents.py
_MAX_EDITS = 1_000


class Edit(NamedTuple):
    """A piece of a track's presentation. `is_empty`: nothing of the track is played in it."""

    duration_s: float
    is_empty: bool


def boxes(fd: int, begin: int, end: int, kind: bytes) -> Iterator[tuple[int, int]]:
    """[begin, end) of what each box of this kind holds, among those that lie in [begin, end) side by side."""
    for _ in range(_MAX_BOXES):
        if begin + 8 > end:
            return
        length, header = integer(fd, begin, 4), 8
        if length == 1:
            length, header = integer(fd, begin + 8, 8), 16
        length = length or end - begin
        if length < header:
            return
        if os.pread(fd, 4, begin + 4) == kind:
            yield begin + header, min(begin + length, end)
        begin += length


def media_bytes(fd: int, begin: int, end: int) -> int:
    """Bytes of sound and picture in the film in [begin, end)."""
    return sum(last - first for first, last in boxes(fd, begin, end, b"mdat"))


def edits(fd: int, begin: int, end: int, track: int) -> list[Edit]:
    """The edit list of the track with this id, in the film in [begin, end)."""
    for film in boxes(fd, begin, end, b"moov"):
        scale = next((_time_scale(fd, head) for head, _ in boxes(fd, *film, b"mvhd")), 0)
        for place in boxes(fd, *film, b"trak"):
            for head, _ in boxes(fd, *place, b"tkhd"):
                if integer(fd, head + (20 if _is_long(fd, head) else 12), 4) == track and scale:
                    return [edit for lists in boxes(fd, *place, b"edts") for edit in _edits(fd, *lists, scale)]
    return []


def pauses(of: list[Edit]) -> list[tuple[float, float]]:
    """[begin, end) in seconds of the empty edits behind the first that is not. FFmpeg plays the sound's start there."""
    ends = [0.0, *accumulate(edit.duration_s for edit in of)]
    first = next((index for index, edit in enumerate(of) if not edit.is_empty), len(of))
    return [(ends[index], ends[index + 1]) for index in range(first, len(of)) if of[index].is_empty]


def _is_long(fd: int, head: int) -> bool:
    """Whether a box has fields of 64 bits, by its version."""
    return integer(fd, head, 1) == 1


def _time_scale(fd: int, head: int) -> int:
    return integer(fd, head + (20 if _is_long(fd, head) else 12), 4)


def _edits(fd: int, begin: int, end: int, scale: int) -> Iterator[Edit]:
    for head, last in boxes(fd, begin, end, b"elst"):
        length = 8 if _is_long(fd, head) else 4
        for number in range(min(integer(fd, head + 4, 4), _MAX_EDITS)):
            at = head + 8 + number * (2 * length + 4)
            if at + 2 * length > last:
                return
            is_empty = integer(fd, at + length, length) == (1 << 8 * length) - 1  # -1
            yield Edit(integer(fd, at, length) / scale, is_empty)
