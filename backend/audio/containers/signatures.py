"""Detects a file's container from its content.

- An allow list decides. What is not on it (playlists, text, images, anything that refers to other files) is not audio.
- Only the open descriptor is read, with pread; the file's name is not used.
- Tags of players before the sound, and zeros behind them, are passed over.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import partial

from backend.audio.containers.byte_reader import first_nonzero
from backend.audio.containers.extents import (
    asf_extent,
    au_extent,
    avi_extent,
    caf_extent,
    matroska_extent,
    mov_extent,
    mxf_extent,
    sized_extent,
)
from backend.audio.containers.formats import Extent, Format, searched_extent
from backend.audio.containers.mpeg_frames import raw_mpeg
from backend.audio.containers.ogg_pages import ogg_extent
from backend.audio.containers.riff import wav_extent

_SEARCHED_BYTES = 1 << 14  # bytes in which the first frame of a raw MPEG stream must be found: dumps start in mid-frame
_MAX_TAGS = 8
_MAX_ZEROS = 1 << 16  # bytes: players and taggers leave room behind a tag
_MAX_PAUSE_S = 3600.0  # a recorder that was stopped for longer has started another recording
_MAX_JUMP_S = 10.0  # where joined streams keep their own clocks, more is another clock: FFmpeg's dts_delta_threshold
_TS_PACKET_BYTES = (188, 192, 204)  # broadcast; with the clock of a camcorder; with error correction
_TS_SYNC, _TS_PACKETS = 0x47, 5  # so many sync bytes in a row, by chance once in 10^7 files


def sniff(fd: int, begin: int = 0) -> tuple[Format, int] | None:
    """The container of what begins at `begin`, and where its own first byte is; None if it is not on the allow list."""
    for _ in range(_MAX_TAGS):
        head = os.pread(fd, _SEARCHED_BYTES, begin)
        found = _container(head)
        if found is not None:
            return found[0], begin + found[1]
        if head[:3] == b"ID3" and len(head) > 10:
            footer = 10 if head[5] & 0x10 else 0
            length = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
            begin += 10 + length + footer
        elif head[:1] == b"\0":
            first = first_nonzero(fd, begin, begin + _MAX_ZEROS)
            if first >= begin + 3 and _is_quicktime(
                os.pread(fd, 8, first - 3)
            ):  # its size begins with zeros of its own
                first -= 3
            begin = first
        else:
            break
    return None


def _container(head: bytes) -> tuple[Format, int] | None:
    """The container, and how far after the start of `head` it begins."""
    if head[:3] == b"ID3":
        return None
    for matches, container in _SIGNATURES:
        if matches(head):
            return container, 0
    if (offset := _transport_stream(head)) is not None:
        return _MPEG_TS, offset
    return raw_mpeg(head, is_whole_file=len(head) < _SEARCHED_BYTES)


def _magic(*pieces: tuple[int, bytes]) -> Callable[[bytes], bool]:
    return lambda head: all(head.startswith(piece, at) for at, piece in pieces)


def _is_quicktime(head: bytes) -> bool:
    return head[4:8] in {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"}


def _transport_stream(head: bytes) -> int | None:
    """Where the first whole packet begins: recordings of a broadcast start inside one."""
    offset = head.find(_TS_SYNC)
    while 0 <= offset < len(head) - 2 * _TS_PACKET_BYTES[0]:
        for length in _TS_PACKET_BYTES:
            syncs = head[offset::length][:_TS_PACKETS]
            is_start = offset <= length and len(syncs) > 2  # of a file of a few packets
            if set(syncs) == {_TS_SYNC} and (is_start or len(syncs) == _TS_PACKETS):
                return offset
        offset = head.find(_TS_SYNC, offset + 1)
    return None


def _ts_extent(fd: int, begin: int, size: int) -> Extent:
    """To the last packets, where the end of the file has none."""
    low, high = begin, size - _SEARCHED_BYTES
    if high <= low or _transport_stream(os.pread(fd, _SEARCHED_BYTES, high)) is not None:
        return Extent()
    while high - low > _SEARCHED_BYTES:
        middle = (low + high) // 2
        is_stream = _transport_stream(os.pread(fd, _SEARCHED_BYTES, middle)) is not None
        low, high = (middle, high) if is_stream else (low, middle)
    return Extent(high)


_FORM = partial(sized_extent, offset=4, length=4, order="big", extra=8)
_FLAC = partial(searched_extent, header=re.compile(rb"fLaC[\x00\x80]\x00\x00\x22"), length=8)
_AMR = partial(searched_extent, header=re.compile(rb"#!AMR(?:-WB)?\n"), length=9)
_FLV = partial(searched_extent, header=re.compile(rb"FLV\x01[\x01\x04\x05]\x00\x00\x00\x09\x00{4}"), length=13)
_WAV = Format("wav", is_plain=True, extent=wav_extent)
_AIFF = Format("aiff", is_plain=True, extent=_FORM)
_W64 = Format("w64", is_plain=True, extent=partial(sized_extent, offset=16, length=8, order="little", extra=0))
_W64_GUID = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
_ASF_GUID = b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c"
_MXF_KEY = b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02\x01\x01\x02"  # of its first pack
_MPEG_TS = Format("mpegts", extent=_ts_extent, max_gap_s=_MAX_JUMP_S)

_SIGNATURES: tuple[tuple[Callable[[bytes], bool], Format], ...] = (
    (_magic((0, b"RIFF"), (8, b"WAVE")), _WAV),
    (_magic((0, b"RIFX"), (8, b"WAVE")), _WAV),
    (_magic((0, b"RF64"), (8, b"WAVE")), _WAV),
    (_magic((0, b"BW64"), (8, b"WAVE")), _WAV),
    (_magic((0, _W64_GUID)), _W64),
    (_magic((0, b"FORM"), (8, b"AIFF")), _AIFF),
    (_magic((0, b"FORM"), (8, b"AIFC")), _AIFF),
    (_magic((0, b"caff")), Format("caf", is_plain=True, extent=caf_extent)),
    (_magic((0, b".snd")), Format("au", is_plain=True, extent=au_extent)),
    (_magic((0, b"NIST_1A\n")), Format("nistsphere", is_plain=True)),
    (_magic((0, b"fLaC")), Format("flac", has_exact_duration=True, extent=_FLAC)),
    (_magic((0, b"OggS")), Format("ogg", extent=ogg_extent)),
    (_is_quicktime, Format("mov", extent=mov_extent, max_gap_s=_MAX_PAUSE_S)),
    (_magic((0, b"\x1a\x45\xdf\xa3")), Format("matroska", extent=matroska_extent, max_gap_s=_MAX_PAUSE_S)),
    (_magic((0, _ASF_GUID)), Format("asf", extent=asf_extent, max_gap_s=_MAX_PAUSE_S)),
    (_magic((0, _MXF_KEY)), Format("mxf", extent=mxf_extent, max_gap_s=_MAX_PAUSE_S)),
    (_magic((0, b"RIFF"), (8, b"AVI ")), Format("avi", extent=avi_extent, max_gap_s=_MAX_PAUSE_S)),
    (_magic((0, b"#!AMR")), Format("amr", extent=_AMR)),
    (_magic((0, b"#!iLBC")), Format("ilbc")),
    (_magic((0, b"wvpk")), Format("wv", has_exact_duration=True)),
    (_magic((0, b"TTA1")), Format("tta", has_exact_duration=True)),
    (_magic((0, b"FLV\x01")), Format("flv", extent=_FLV, max_gap_s=_MAX_JUMP_S)),
    (_magic((0, b"\x00\x00\x01\xba")), Format("mpeg", max_gap_s=_MAX_JUMP_S)),
    (_magic((0, b"\x7f\xfe\x80\x01")), Format("dts")),
    (_magic((4, b"\xf8\x72\x6f\xba")), Format("truehd")),
    (_magic((4, b"\xf8\x72\x6f\xbb")), Format("mlp")),
    (lambda head: head.startswith(b"\x0b\x77") and len(head) > 5 and head[5] >> 3 <= 10, Format("ac3")),
    (lambda head: head.startswith(b"\x0b\x77") and len(head) > 5 and head[5] >> 3 <= 16, Format("eac3")),
)
