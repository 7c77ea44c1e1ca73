"""Ogg pages (RFC 3533): where a stream that is chained to another begins, and the header of one page."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from backend.audio.containers.byte_reader import matches
from backend.audio.containers.formats import Extent

_HEADER_BYTES = 27
_MAX_PAGE_BYTES = 27 + 255 + 255 * 255
_MAX_STREAMS = 64  # of one link: sound tracks, pictures, subtitles
_FIRST_PAGE = re.compile(rb"OggS\x00[\x02\x06]")
_CONTINUED, _FIRST, _LAST = 1, 2, 4


@dataclass(frozen=True)
class Page:
    """`granule`: the position at its end in samples, -1 if no packet ends on it. `is_open`: its last packet goes on."""

    flags: int
    granule: int
    serial: int
    number: int
    is_open: bool
    length: int

    @property
    def is_first(self) -> bool:
        return bool(self.flags & _FIRST)


def page_at(fd: int, position: int) -> Page | None:
    """The page that begins at `position`, None if none does."""
    head = os.pread(fd, _HEADER_BYTES + 255, position)
    if len(head) < _HEADER_BYTES or head[:5] != b"OggS\0":
        return None
    lacing = head[_HEADER_BYTES : _HEADER_BYTES + head[26]]
    return Page(
        head[5],
        int.from_bytes(head[6:14], "little", signed=True),
        int.from_bytes(head[14:18], "little"),
        int.from_bytes(head[18:22], "little"),
        bool(lacing) and lacing[-1] == 255,
        _HEADER_BYTES + len(lacing) + sum(lacing),
    )


def ogg_extent(fd: int, begin: int, size: int) -> Extent:
    """One link of a chained file: to the first page of the next, or to the end of the file.

    It is cut short if its last page lacks the flag that every stream ends with.
    """
    position = begin
    for _ in range(_MAX_STREAMS):  # the first pages of a link's streams come before all others
        page = page_at(fd, position)
        if page is None or not page.is_first:
            break
        position += page.length
    starts = matches(fd, [_FIRST_PAGE], position, size, 6)
    end = next((at for at in starts if _is_whole(fd, at)), size)
    last = _last_page_end(fd, begin, end)
    return Extent(last or end, not last) if end == size else Extent(end, not last)


def _last_page_end(fd: int, begin: int, end: int) -> int:
    """The end of the last page, if it has the flag that every stream ends with, and is whole; else 0."""
    tail_begin = max(end - _MAX_PAGE_BYTES, begin)
    position = tail_begin + os.pread(fd, end - tail_begin, tail_begin).rfind(b"OggS")
    page = page_at(fd, position) if position >= tail_begin else None
    is_last = page is not None and page.flags & _LAST and position + page.length <= end
    return position + page.length if page is not None and is_last else 0


def _is_whole(fd: int, position: int) -> bool:
    """Whether a page begins here, by its checksum: the same bytes may occur inside a packet."""
    page = page_at(fd, position)
    if page is None or page.length > _MAX_FIRST_PAGE_BYTES:
        return False
    content = bytearray(os.pread(fd, page.length, position))
    stated = int.from_bytes(content[22:26], "little")
    content[22:26] = bytes(4)
    checksum = 0
    for byte in content:
        checksum = (checksum << 8 & 0xFFFFFFFF) ^ _CRC[checksum >> 24 ^ byte]
    return checksum == stated


def _crc_of(byte: int) -> int:
    checksum = byte << 24
    for _ in range(8):
        checksum = checksum << 1 ^ (0x04C11DB7 if checksum & 1 << 31 else 0)
    return checksum & 0xFFFFFFFF


_MAX_FIRST_PAGE_BYTES = 1 << 12  # it holds a header of under a hundred bytes
_CRC = tuple(_crc_of(byte) for byte in range(256))
