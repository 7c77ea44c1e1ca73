"""Reads of an open file by position. A search moves the descriptor's own offset, by which the server sees progress."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias

ByteOrder: TypeAlias = Literal["little", "big"]

_BLOCK = 1 << 20  # bytes that are searched at a time
_ZEROS = bytes(_BLOCK)


def integer(fd: int, offset: int, length: int, order: ByteOrder = "big") -> int:
    return int.from_bytes(os.pread(fd, length, offset), order)


def is_printable(name: bytes) -> bool:
    """Whether it can be the name of a chunk or box: four characters of ASCII, or (c) as QuickTime has it."""
    return len(name) == 4 and all(0x20 <= byte < 0x7F or byte == 0xA9 for byte in name)


def first_nonzero(fd: int, begin: int, end: int) -> int:
    """The position of the first byte in [begin, end) that is not zero; `end` if there is none."""
    while begin < end:
        block = os.pread(fd, min(_BLOCK, end - begin), begin)
        if not block:
            break
        if block != (_ZEROS if len(block) == _BLOCK else bytes(len(block))):
            return begin + len(block) - len(block.lstrip(b"\0"))
        begin += len(block)
    return end


def nonzero_end(fd: int, begin: int, end: int) -> int:
    """Where the zeros at the end of [begin, end) begin; `begin` if there is nothing else."""
    while begin < end:
        block = os.pread(fd, min(_BLOCK, end - begin), max(begin, end - _BLOCK))
        if block != (_ZEROS if len(block) == _BLOCK else bytes(len(block))):
            return end - len(block) + len(block.rstrip(b"\0"))
        end -= max(len(block), 1)
    return begin


def matches(fd: int, patterns: Sequence[re.Pattern[bytes]], begin: int, end: int, longest: int) -> Iterator[int]:
    """Where one of `patterns` matches in [begin, end), in order. `longest`: bytes that a match has at most.

    Patterns that begin with literal bytes are searched for at gigabytes per second, others at a tenth of that.
    """
    last = begin - 1
    while begin < end:
        os.lseek(fd, begin, os.SEEK_SET)  # a search of gigabytes is no standstill (watchdog.py)
        block = os.pread(fd, min(_BLOCK + longest, end - begin), begin)
        for at in sorted(match.start() for pattern in patterns for match in pattern.finditer(block)):
            if begin + at > last:
                last = begin + at
                yield last
        begin += _BLOCK
