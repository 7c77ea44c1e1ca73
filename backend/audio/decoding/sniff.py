"""Detects a file's container from its content, and whether the file is truncated by what its headers state.

- An allow list decides. What is not on it (playlists, text, images, anything that refers to other files) is not audio.
- Only the open descriptor is read, with pread: its offset never moves, and the file's name is not used.
- A size stated in a header is used only to report that a file is truncated, never to allocate or to trust anything.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

ByteOrder: TypeAlias = Literal["little", "big"]

# Codecs that libsndfile decodes sample by sample, and to their end.
PLAIN_CODECS = (
    "PCM_S8 PCM_U8 PCM_16 PCM_24 PCM_32 FLOAT DOUBLE ULAW ALAW IMA_ADPCM MS_ADPCM GSM610 ALAC_16 ALAC_20 ALAC_24"
    " ALAC_32"
)

# FFmpeg's decoders for what recorders and players write. The hundreds for game archives and the like are not allowed,
# nor any for video, which FFmpeg would otherwise run while it probes a file.
CODECS = (
    "aac,aac_latm,ac3,adpcm_g726,adpcm_g726le,adpcm_ima_qt,adpcm_ima_wav,adpcm_ms,adpcm_swf,adpcm_yamaha,alac,amrnb,amrwb,"
    "dca,eac3,flac,g722,g726,g726le,gsm,gsm_ms,ilbc,libopencore_amrnb,libopencore_amrwb,libopus,libspeex,libvorbis,mlp,"
    "mp1,mp1float,mp2,mp2float,mp3,mp3float,nellymoser,opus,pcm_alaw,pcm_bluray,pcm_dvd,pcm_f32be,pcm_f32le,pcm_f64be,"
    "pcm_f64le,pcm_mulaw,pcm_s16be,pcm_s16be_planar,pcm_s16le,pcm_s16le_planar,pcm_s24be,pcm_s24le,pcm_s24le_planar,"
    "pcm_s32be,pcm_s32le,pcm_s32le_planar,pcm_s8,pcm_s8_planar,pcm_u8,qdm2,s302m,speex,truehd,truespeech,tta,vorbis,"
    "wavpack,wmalossless,wmapro,wmav1,wmav2,wmavoice"
)


@dataclass(frozen=True)
class Format:
    """A container. `demuxer`: FFmpeg's name for it. `is_plain`: it holds PCM or the like, which libsndfile reads whole.

    libsndfile also reads FLAC, OGG and MP3, but stops early without an error in files that people have: after 1.7 s of
    a 10 s VBR MP3 without a Xing header, after the first of joined MP3, OGG or FLAC files, after 8.9 s of 10 s of FLAC
    that was written to a pipe (libsndfile 1.2.2, measured).
    """

    demuxer: str
    is_plain: bool = False
    has_exact_duration: bool = False  # the header counts samples; for others FFmpeg estimates the duration
    stated_bytes: Callable[[int, int], int] | None = None  # (fd, file size) -> size by the headers, 0 if unknown
    max_gap_s: float = 0.0  # longest gap in the packets' timestamps; 0: FFmpeg counts or guesses the timestamps


def sniff(fd: int) -> Format | None:
    """The container of the file `fd`, or None if it is not on the allow list."""
    start = 0
    for _ in range(4):  # ID3 tags precede MP3, AAC and FLAC; tagging programs leave one or two
        head = os.pread(fd, _SEARCHED_BYTES, start)
        if head[:3] != b"ID3" or len(head) < 10:
            break
        start += 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    else:
        return None
    for matches, container in _SIGNATURES if start == 0 else _AFTER_ID3:
        if matches(head):
            return container
    return _raw_mpeg(head, is_whole_file=len(head) < _SEARCHED_BYTES)


def is_truncated(fd: int, container: Format, size: int) -> bool:
    """Whether the file's headers state more bytes than it has. The header of a live recording states no size."""
    return container.stated_bytes is not None and container.stated_bytes(fd, size) > size + _SLACK_BYTES


_SEARCHED_BYTES = 1 << 14  # bytes in which the first frame of a raw MPEG stream must be found: dumps start in mid-frame
_SLACK_BYTES = 16  # bytes; writers disagree about counting the chunk's own header and the padding byte
_MAX_BOXES = 100_000  # a day of two-second fragments; bounds the time for a file of empty boxes


def _integer(fd: int, offset: int, length: int, order: ByteOrder = "big") -> int:
    return int.from_bytes(os.pread(fd, length, offset), order)


def _size_field(fd: int, _size: int, *, offset: int, length: int, order: ByteOrder, extra: int) -> int:
    """A size at a fixed offset. Writers to a pipe leave 0, about 2^31 (sox) or about 2^32 (ffmpeg) there."""
    stated = _integer(fd, offset, length, order)
    unknown = stated == 0 or (length == 4 and min(abs(stated - (1 << 31)), (1 << 32) - stated) < 1 << 17)
    return 0 if unknown else stated + extra


def _au(fd: int, _size: int) -> int:
    stated = _integer(fd, 8, 4)
    return 0 if stated == 0xFFFFFFFF else stated + _integer(fd, 4, 4)


def _caf(fd: int, size: int) -> int:
    """The end of the last chunk. A data chunk of length -1 extends to the end of the file."""
    position = 8
    for _ in range(_MAX_BOXES):
        if position + 12 > size:
            break
        length = _integer(fd, position + 4, 8)
        if length >= 1 << 63:
            return 0
        position += 12 + length
    return position


def _mov(fd: int, size: int) -> int:
    """The end of the last top-level box. A length of 0 means `to the end of the file`."""
    position = 0
    for _ in range(_MAX_BOXES):
        if position + 8 > size:
            break
        length = _integer(fd, position, 4)
        if length == 1:
            length = _integer(fd, position + 8, 8)
        if length < 8:
            return 0
        position += length
    return position


def _matroska(fd: int, _size: int) -> int:
    """The end of the segment after the EBML header. Browsers record with an unknown length (all ones)."""
    after_header = 4 + sum(_ebml_length(fd, 4))
    if os.pread(fd, 4, after_header) != b"\x18\x53\x80\x67":
        return 0
    width, length = _ebml_length(fd, after_header + 4)
    return 0 if length == (1 << 7 * width) - 1 else after_header + 4 + width + length


def _ebml_length(fd: int, offset: int) -> tuple[int, int]:
    """(width in bytes, value) of an EBML number: its leading zero bits count the bytes that follow the first."""
    width = 9 - (_integer(fd, offset, 1) or 1).bit_length()
    return width, _integer(fd, offset, width) & ((1 << 7 * width) - 1)


def _ogg(fd: int, size: int) -> int:
    """A byte beyond the file (and slack) if its last page lacks the end-of-stream flag, which every OGG stream has."""
    tail = os.pread(fd, 1 << 16, max(size - (1 << 16), 0))
    page = tail[tail.rfind(b"OggS") :]
    has_end = len(page) > 27 and page[5] & 4 and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])
    return 0 if has_end else size + _SLACK_BYTES + 1


def _magic(*pieces: tuple[int, bytes]) -> Callable[[bytes], bool]:
    return lambda head: all(head.startswith(piece, at) for at, piece in pieces)


def _is_quicktime(head: bytes) -> bool:
    return head[4:8] in {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"}


def _is_transport_stream(head: bytes) -> bool:
    return len(head) > 2 * 188 and all(head[at] == 0x47 for at in (0, 188, 376))


_MAX_PAUSE_S = 3600.0  # a recorder that was stopped for longer has started another recording
_MAX_JUMP_S = 10.0  # where joined streams keep their own clocks, more is another clock: FFmpeg's dts_delta_threshold

_RIFF = partial(_size_field, offset=4, length=4, order="little", extra=8)
_FORM = partial(_size_field, offset=4, length=4, order="big", extra=8)
_WAV = Format("wav", is_plain=True, stated_bytes=_RIFF)
_RF64 = Format("wav", is_plain=True, stated_bytes=partial(_size_field, offset=20, length=8, order="little", extra=8))
_AIFF = Format("aiff", is_plain=True, stated_bytes=_FORM)
_W64 = Format("w64", is_plain=True, stated_bytes=partial(_size_field, offset=16, length=8, order="little", extra=0))
_W64_GUID = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
_ASF_GUID = b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c"
_FLAC = Format("flac", has_exact_duration=True)
_MP3 = Format("mp3")
_MP3_EXACT = Format("mp3", has_exact_duration=True)
_ADTS = Format("aac")

_SIGNATURES: tuple[tuple[Callable[[bytes], bool], Format], ...] = (
    (_magic((0, b"RIFF"), (8, b"WAVE")), _WAV),
    (_magic((0, b"RIFX"), (8, b"WAVE")), Format("wav", is_plain=True, stated_bytes=_FORM)),
    (_magic((0, b"RF64"), (8, b"WAVE")), _RF64),
    (_magic((0, b"BW64"), (8, b"WAVE")), _RF64),
    (_magic((0, _W64_GUID)), _W64),
    (_magic((0, b"FORM"), (8, b"AIFF")), _AIFF),
    (_magic((0, b"FORM"), (8, b"AIFC")), _AIFF),
    (_magic((0, b"caff")), Format("caf", is_plain=True, stated_bytes=_caf)),
    (_magic((0, b".snd")), Format("au", is_plain=True, stated_bytes=_au)),
    (_magic((0, b"NIST_1A\n")), Format("nistsphere", is_plain=True)),
    (_magic((0, b"fLaC")), _FLAC),
    (_magic((0, b"OggS")), Format("ogg", stated_bytes=_ogg)),
    (_is_quicktime, Format("mov", stated_bytes=_mov, max_gap_s=_MAX_PAUSE_S)),
    (_magic((0, b"\x1a\x45\xdf\xa3")), Format("matroska", stated_bytes=_matroska, max_gap_s=_MAX_PAUSE_S)),
    (_magic((0, _ASF_GUID)), Format("asf", max_gap_s=_MAX_PAUSE_S)),
    (_magic((0, b"RIFF"), (8, b"AVI ")), Format("avi", stated_bytes=_RIFF)),
    (_magic((0, b"#!AMR")), Format("amr")),
    (_magic((0, b"wvpk")), Format("wv", has_exact_duration=True)),
    (_magic((0, b"FLV\x01")), Format("flv", max_gap_s=_MAX_JUMP_S)),
    (_magic((0, b"\x00\x00\x01\xba")), Format("mpeg", max_gap_s=_MAX_JUMP_S)),
    (_is_transport_stream, Format("mpegts", max_gap_s=_MAX_JUMP_S)),
    (lambda head: head.startswith(b"\x0b\x77") and len(head) > 5 and head[5] >> 3 <= 10, Format("ac3")),
    (lambda head: head.startswith(b"\x0b\x77") and len(head) > 5 and head[5] >> 3 <= 16, Format("eac3")),
)
_AFTER_ID3 = ((_magic((0, b"fLaC")), _FLAC),)

# Raw MPEG streams have no signature; a row of valid frames identifies them.
_KBIT_RATES = {  # (is MPEG-1, layer): kbit/s by index 1 to 14; index 0 is `free`, 15 is forbidden
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}  # MPEG-1, 2, 2.5


def _raw_mpeg(head: bytes, *, is_whole_file: bool) -> Format | None:
    """MP3 or ADTS, if three frames follow each other (or all frames of the file): by chance once in 10^7 files."""
    at = head.find(0xFF)
    while at >= 0:
        for frame_length, container in ((_mp3_frame_length, _MP3), (_adts_frame_length, _ADTS)):
            position, frames = at, 0
            while frames < 3 and (length := frame_length(head[position : position + 6])):
                position, frames = position + length, frames + 1
            if frames == 3 or (frames and at == 0 and is_whole_file and position == len(head)):
                is_exact = container is _MP3 and any(tag in head[at : at + 64] for tag in (b"Xing", b"Info", b"VBRI"))
                return _MP3_EXACT if is_exact else container
        at = head.find(0xFF, at + 1)
    return None


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
