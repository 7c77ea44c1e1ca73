"""How far each kind of container reaches by its own headers, where another file may be joined to it.

A stated size is used only to find what follows, and to report that a file ends early; nothing is allocated by it.
"""

from __future__ import annotations

import os
import re

from backend.audio.containers.byte_reader import ByteOrder, integer, is_printable, matches
from backend.audio.containers.formats import Extent
from backend.audio.containers.riff import SLACK_BYTES, is_unknown_size

_MAX_BOXES = 100_000  # a day of two-second fragments; bounds the time for a file of empty boxes
_BOXES = frozenset(
    b"ftyp moov mdat free skip wide uuid moof mfra mfro sidx ssix styp pdin meta udta pnot PICT emsg prft junk".split()
)
_CAF_CHUNKS = frozenset(b"desc data kuki pakt free chan info uuid strg mark regn midi ovvw peak umid edct inst".split())
_EBML = re.compile(rb"\x1a\x45\xdf\xa3.{1,64}?\x42\x82.(?:webm|matroska)", re.DOTALL)
_EBML_BYTES = 80


def _extent(end: int, size: int) -> Extent:
    return Extent(min(end, size), end > size + SLACK_BYTES)


def sized_extent(fd: int, begin: int, size: int, *, offset: int, length: int, order: ByteOrder, extra: int) -> Extent:
    """A size at a fixed offset. Writers to a pipe leave values there that say nothing (is_unknown_size)."""
    stated = integer(fd, begin + offset, length, order)
    unknown = is_unknown_size(stated) if length == 4 else stated == 0 or stated >= 1 << 63
    return Extent() if unknown else _extent(begin + stated + extra, size)


def asf_extent(fd: int, begin: int, size: int) -> Extent:
    """To the header of another file. An object of size 0 is that of a live recording."""
    header, position = os.pread(fd, 16, begin), begin
    for _ in range(_MAX_BOXES):
        if position + 24 > size or (position > begin and os.pread(fd, 16, position) == header):
            break
        length = integer(fd, position + 16, 8, "little")
        if length < 24:
            return Extent()
        position += length
    return _extent(position, size)


def au_extent(fd: int, begin: int, size: int) -> Extent:
    stated = integer(fd, begin + 8, 4)
    return Extent() if stated == 0xFFFFFFFF else _extent(begin + stated + integer(fd, begin + 4, 4), size)


def caf_extent(fd: int, begin: int, size: int) -> Extent:
    """To the end of the last chunk. A data chunk of length -1 extends to the end of the file."""
    position = begin + 8
    for _ in range(_MAX_BOXES):
        if position + 12 > size:
            break
        name, length = os.pread(fd, 4, position), integer(fd, position + 4, 8)
        if name not in _CAF_CHUNKS:
            break
        if length >= 1 << 63:
            return Extent()
        position += 12 + length
    return _extent(position, size)


def avi_extent(fd: int, begin: int, size: int) -> Extent:
    """To the end of the last RIFF chunk: those after the first are of kind AVIX."""
    position, is_first = begin, True
    for _ in range(_MAX_BOXES):
        head = os.pread(fd, 12, position)
        if not (is_first or (head[:4] == b"RIFF" and head[8:] == b"AVIX")):
            break
        stated = int.from_bytes(head[4:8], "little")
        if is_unknown_size(stated):
            return Extent()
        position, is_first = position + 8 + stated + (stated & 1), False
    return _extent(position, size)


def mov_extent(fd: int, begin: int, size: int) -> Extent:
    """To the end of the last top-level box, or to the `ftyp` of another film. A length of 0: to the end of the file."""
    position, has_film = begin, False
    for _ in range(_MAX_BOXES):
        if position + 8 > size:
            break
        length, kind = integer(fd, position, 4), os.pread(fd, 4, position + 4)
        if kind == b"ftyp" and has_film:
            break
        if not is_printable(kind) or (has_film and kind not in _BOXES):
            return Extent(position) if has_film else Extent()
        has_film = has_film or kind == b"moov"
        if length == 1:
            length = integer(fd, position + 8, 8)
        if length < 8:
            return Extent()
        position += length
    return _extent(position, size)


def mxf_extent(fd: int, begin: int, size: int) -> Extent:
    """Cut short where the footer that its first pack points at (SMPTE 377-1, 7.1) is not in the file."""
    first = integer(fd, begin + 16, 1)  # of the pack's length: itself, or how many bytes it has
    body = begin + 17 + (first & 0x7F if first & 0x80 else 0)
    footer = integer(fd, body + 24, 8)
    return Extent(0, bool(footer) and begin + footer + SLACK_BYTES > size)


def matroska_extent(fd: int, begin: int, size: int) -> Extent:
    """To the end of the segment. Browsers record with an unknown length (all ones): to the next file's header."""
    after_header = begin + 4 + sum(_ebml_length(fd, begin + 4))
    if os.pread(fd, 4, after_header) != b"\x18\x53\x80\x67":
        return Extent()
    width, length = _ebml_length(fd, after_header + 4)
    if length == (1 << 7 * width) - 1:
        return Extent(next(matches(fd, [_EBML], after_header, size, _EBML_BYTES), 0))
    return _extent(after_header + 4 + width + length, size)


def _ebml_length(fd: int, offset: int) -> tuple[int, int]:
    """(width in bytes, value) of an EBML number: its leading zero bits count the bytes that follow the first."""
    width = 9 - (integer(fd, offset, 1) or 1).bit_length()
    return width, integer(fd, offset, width) & ((1 << 7 * width) - 1)
