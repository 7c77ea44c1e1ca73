"""A file made of pieces: parts of an open file, and bytes of our own, read one after the other."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import TypeAlias

Piece: TypeAlias = bytes | tuple[int, int]  # bytes, or [begin, end) of the file


class Pieces:
    """A readable, seekable file for libsndfile and FFmpeg.

    It moves the descriptor's own offset, by which the server sees how far the file has been read (watchdog.py).
    """

    def __init__(self, fd: int, pieces: Sequence[Piece]) -> None:
        self._fd = fd
        self._pieces = [piece for piece in pieces if _length(piece)]
        self._begins = [0, *accumulate(map(_length, self._pieces))]
        self._at = 0

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes, and at least one before the end."""
        index = bisect_right(self._begins, self._at) - 1
        if index >= len(self._pieces):
            return b""
        piece, offset = self._pieces[index], self._at - self._begins[index]
        left = self._begins[index + 1] - self._at
        size = left if size < 0 else min(size, left)
        if isinstance(piece, bytes):
            found = piece[offset : offset + size]
        else:
            os.lseek(self._fd, piece[0] + offset, os.SEEK_SET)
            found = os.read(self._fd, size)
        self._at += len(found)
        return found

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """The new position; -1 for a seek that fails, as FFmpeg expects: damaged files send it to before their start.

        PyAV does not pass on an exception that is raised here.
        """
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._begins[-1]}.get(whence)
        if base is None or base + offset < 0:
            return -1
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at


def _length(piece: Piece) -> int:
    return len(piece) if isinstance(piece, bytes) else piece[1] - piece[0]
