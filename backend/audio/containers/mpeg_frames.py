"""Raw MPEG streams (MP3, ADTS) have no signature: a row of valid frames identifies them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from backend.audio.containers.byte_reader import matches
from backend.audio.containers.formats import Extent, Format

# What another MP3 begins with: an ID3 tag, or a frame that holds the length of the sound behind its side information.
_MARKS = [re.compile(mark) for mark in (rb"ID3[\x02-\x04]\x00[\x00\x10\x40\x80][\x00-\x7f]{4}", b"Xing", b"Info")]
_MARK_BYTES = 10
_SIDE_BYTES = (9, 17, 32)  # ISO 11172-3 and 13818-3: mono and stereo, halved in MPEG-2


def mp3_extent(fd: int, begin: int, size: int) -> Extent:
    """To where another MP3 begins. Without such a mark joined files are one stream of frames."""
    for mark in matches(fd, _MARKS, begin + 4 + _SIDE_BYTES[-1] + 1, size, _MARK_BYTES):
        if os.pread(fd, 3, mark) == b"ID3":
            return Extent(mark, is_searched=True)
        for start in (mark - 4 - side for side in _SIDE_BYTES):
            if _mp3_frame_length(os.pread(fd, 4, start)):
                return Extent(start, is_searched=True)
    return Extent()


MP3 = Format("mp3", extent=mp3_extent)
MP3_EXACT = Format("mp3", has_exact_duration=True, extent=mp3_extent)
ADTS = Format("aac")

_KBIT_RATES = {  # (is MPEG-1, layer): kbit/s by index 1 to 14; index 0 is `free`, 15 is forbidden
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}  # MPEG-1, 2, 2.5


def raw_mpeg(head: bytes, *, is_whole_file: bool) -> tuple[Format, int] | None:
    """MP3 or ADTS, and where its first frame is, if three frames follow each other or fill the file.

    By chance once in 10^7 files.
    """
    at = head.find(0xFF)
    while at >= 0:
        for frame_length, container in _KINDS:
            position, frames = _frames_at(head, at, frame_length)
            if frames == 3 or (frames and at == 0 and is_whole_file and position == len(head)):
                is_exact = container is MP3 and any(tag in head[at : at + 64] for tag in (b"Xing", b"Info", b"VBRI"))
                return (MP3_EXACT if is_exact else container), at
        at = head.find(0xFF, at + 1)
    return None


def begins_with_frames(head: bytes) -> bool:
    """Whether three frames of one kind are the first bytes."""
    return any(_frames_at(head, 0, frame_length)[1] == 3 for frame_length, _ in _KINDS)


def _frames_at(head: bytes, at: int, frame_length: Callable[[bytes], int]) -> tuple[int, int]:
    """(where they end, how many there are): frames that follow each other from `at` on, three at most."""
    position, frames = at, 0
    while frames < 3 and (length := frame_length(head[position : position + 6])):
        position, frames = position + length, frames + 1
    return position, frames


def _mp3_frame_length(header: bytes) -> int:
    """Bytes of the MPEG-1, 2 or 2.5 frame with this header; 0 if it is not one (ISO 11172-3, 2.4.1.3)."""
    if len(header) < 4 or header[0] != 0xFF or header[1] < 0xE0:
        return 0
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    bitrate, rate, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if version == 1 or layer == 4 or bitrate in (0, 15) or rate == 3:
        return 0
    bits = 1000 * _KBIT_RATES[version == 3, layer][bitrate - 1]
    if layer == 1:
        return (12 * bits // _RATES[version][rate] + padding) * 4
    return (72 if layer == 3 and version != 3 else 144) * bits // _RATES[version][rate] + padding


def _adts_frame_length(header: bytes) -> int:
    """Bytes of the ADTS frame with this header; 0 if it is not one (ISO 13818-7, 6.2)."""
    if len(header) < 6 or header[0] != 0xFF or header[1] & 0xF6 != 0xF0 or header[2] >> 2 & 15 > 12:
        return 0
    length = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    return length if length > 7 else 0


_KINDS = ((_mp3_frame_length, MP3), (_adts_frame_length, ADTS))
