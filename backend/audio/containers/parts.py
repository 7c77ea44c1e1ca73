"""A file as the complete files that were joined in it, one after the other; most have one.

- A part ends where its own headers say so, and only if another known file begins there. Otherwise it has the rest.
- Bytes after the last part that are no sound are reported, never guessed at.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from backend.audio.containers.byte_reader import nonzero_end
from backend.audio.containers.formats import Extent, Format
from backend.audio.containers.pieces import Pieces
from backend.audio.containers.signatures import sniff

_MAX_PARTS = 1000
_MIN_UNREAD_BYTES = 4096  # players' tags at the end of a file, which nobody misses, are smaller
_MIN_UNREAD_SHARE = 0.02  # of the file


@dataclass(frozen=True)
class Part:
    """One file of those that were joined, in [begin, end). `pieces`: None if it is the whole file as it is.

    `states_end`: it ends where its headers say. `is_cut_short`: they state more than there is. `has_unread`: much more
    follows than they account for.
    """

    container: Format
    begin: int
    end: int
    pieces: Pieces | None
    states_end: bool = False
    is_cut_short: bool = False
    has_unread: bool = False


def is_much(fd: int, begin: int, end: int) -> bool:
    """Whether what lies in [begin, end), but for zeros at its end, is too much to be left out without a word."""
    return nonzero_end(fd, begin, end) - begin > max(_MIN_UNREAD_BYTES, _MIN_UNREAD_SHARE * end)


def split(fd: int) -> Iterator[Part]:
    """The parts of the file, in order; none if its content is not on the allow list."""
    size = os.fstat(fd).st_size
    found = sniff(fd)
    for number in range(1, _MAX_PARTS + 1):
        if found is None:
            return
        container, begin = found
        extent = container.extent(fd, begin, size) if container.extent else Extent()
        end = extent.end or size
        found = sniff(fd, end) if begin < end < size and number < _MAX_PARTS else None
        stop = size if found is None else end
        states_end = bool(extent.end) and not extent.is_searched
        pieces = (
            None
            if begin == 0 and stop == size and not extent.content
            else Pieces(fd, extent.content or [(begin, stop)])
        )
        has_unread = found is None and states_end and is_much(fd, end, size)
        yield Part(container, begin, stop, pieces, states_end, extent.is_cut_short, has_unread)
