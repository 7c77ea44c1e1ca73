"""Which container a file is, read from its own bytes; and whether it says that there should be more of it.

- An allow list decides. What is not on it (playlists, text, images, anything that names other files) is not audio.
- Only the open descriptor is read, with pread: nothing here moves its offset, and no name is looked at.
- A promise in a header is only ever used to say that a file was cut short, never to reserve or to trust anything.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

ByteOrder: TypeAlias = Literal["little", "big"]

# What libsndfile decodes sample by sample, and completely.
PLAIN_CODECS = (
    "PCM_S8 PCM_U8 PCM_16 PCM_24 PCM_32 FLOAT DOUBLE ULAW ALAW IMA_ADPCM MS_ADPCM GSM610 ALAC_16 ALAC_20 ALAC_24"
    " ALAC_32"
)

# FFmpeg's decoders for what recorders and players write. The hundreds for game archives and the like stay shut, and so
# do all for video, which FFmpeg would otherwise try while it looks a file over.
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
    """A container. `demuxer` is FFmpeg's name for it; `plain` ones hold PCM or its like, which libsndfile reads whole.

    libsndfile also reads FLAC, OGG and MP3, but stops early without a word in files that people do have: after 1.7 s of
    a 10 s VBR MP3 without a Xing header, after the first of joined MP3, OGG or FLAC files, after 8.9 s of 10 s of FLAC
    that was written to a pipe (libsndfile 1.2.2, measured).
    """

    demuxer: str
    plain: bool = False
    tells_duration: bool = False  # the header counts samples; elsewhere FFmpeg estimates, or looks at the bytes at hand
    promised: Callable[[int, int], int] | None = None  # (fd, file size) -> bytes that the headers say there are
    longest_gap_s: float = 0.0  # that its packets' times may skip; 0: FFmpeg's times for them are counted, or guessed


def sniff(fd: int) -> Format | None:
    """The container behind `fd`, or None for whatever is not on the list."""
    start = 0
    for _ in range(4):  # ID3 tags stand before MP3, AAC and FLAC; tagging programs leave one or two
        head = os.pread(fd, _SEARCHED, start)
        if head[:3] != b"ID3" or len(head) < 10:
            break
        start += 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    else:
        return None
    for matches, container in _SIGNATURES if start == 0 else _TAGGED:
        if matches(head):
            return container
    return _frames_of_mpeg(head, ended=len(head) < _SEARCHED)


def is_cut_short(fd: int, container: Format, size: int) -> bool:
    """Whether the file's own headers speak of more bytes than it has. A live recording's header promises nothing."""
    return container.promised is not None and container.promised(fd, size) > size + _SLACK


_SEARCHED = 1 << 14  # bytes in which the first frame of a raw MPEG stream must be found: dumps begin in mid-frame
_SLACK = 16  # writers disagree about counting the chunk's own header and the padding byte
_BOXES = 100_000  # a day of two-second fragments; a file of empty boxes must not keep us reading


def _number(fd: int, offset: int, length: int, order: ByteOrder = "big") -> int:
    return int.from_bytes(os.pread(fd, length, offset), order)


def _field(fd: int, _size: int, *, offset: int, length: int, order: ByteOrder, extra: int) -> int:
    """A size that stands at a fixed place. Writers into a pipe leave 0, about 2^31 (sox) or about 2^32 (ffmpeg)."""
    stated = _number(fd, offset, length, order)
    unknown = stated == 0 or (length == 4 and min(abs(stated - (1 << 31)), (1 << 32) - stated) < 1 << 17)
    return 0 if unknown else stated + extra


def _au(fd: int, _size: int) -> int:
    stated = _number(fd, 8, 4)
    return 0 if stated == 0xFFFFFFFF else stated + _number(fd, 4, 4)


def _caf(fd: int, size: int) -> int:
    """The end of the last chunk; a data chunk of length -1 goes on to the end of the file."""
    position = 8
    for _ in range(_BOXES):
        if position + 12 > size:
            break
        length = _number(fd, position + 4, 8)
        if length >= 1 << 63:
            return 0
        position += 12 + length
    return position


def _mov(fd: int, size: int) -> int:
    """The end of the last top-level box; a length of 0 means `to the end of the file`."""
    position = 0
    for _ in range(_BOXES):
        if position + 8 > size:
            break
        length = _number(fd, position, 4)
        if length == 1:
            length = _number(fd, position + 8, 8)
        if length < 8:
            return 0
        position += length
    return position


def _matroska(fd: int, _size: int) -> int:
    """The end of the segment, which follows the EBML header; browsers record with an unknown length (all ones)."""
    after_header = 4 + sum(_ebml_length(fd, 4))
    if os.pread(fd, 4, after_header) != b"\x18\x53\x80\x67":
        return 0
    width, length = _ebml_length(fd, after_header + 4)
    return 0 if length == (1 << 7 * width) - 1 else after_header + 4 + width + length


def _ebml_length(fd: int, offset: int) -> tuple[int, int]:
    """(bytes that the number takes, the number): its leading zero bits say how many bytes follow the first."""
    width = 9 - (_number(fd, offset, 1) or 1).bit_length()
    return width, _number(fd, offset, width) & ((1 << 7 * width) - 1)


def _ogg(fd: int, size: int) -> int:
    """Every OGG stream ends in a page that says so; a byte more is promised where the last page does not."""
    tail = os.pread(fd, 1 << 16, max(size - (1 << 16), 0))
    page = tail[tail.rfind(b"OggS") :]
    ended = len(page) > 27 and page[5] & 4 and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])
    return 0 if ended else size + _SLACK + 1


def _magic(*pieces: tuple[int, bytes]) -> Callable[[bytes], bool]:
    return lambda head: all(head.startswith(piece, at) for at, piece in pieces)


def _is_quicktime(head: bytes) -> bool:
    return head[4:8] in {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"}


def _is_transport_stream(head: bytes) -> bool:
    return len(head) > 2 * 188 and all(head[at] == 0x47 for at in (0, 188, 376))


_PAUSED_S = 3600.0  # who stopped a recording for longer began another one
_JUMPED_S = 10.0  # where joined streams bring their clocks along, more is another clock: FFmpeg's dts_delta_threshold

_RIFF = partial(_field, offset=4, length=4, order="little", extra=8)
_FORM = partial(_field, offset=4, length=4, order="big", extra=8)
_WAV = Format("wav", plain=True, promised=_RIFF)
_RF64 = Format("wav", plain=True, promised=partial(_field, offset=20, length=8, order="little", extra=8))
_AIFF = Format("aiff", plain=True, promised=_FORM)
_W64 = Format("w64", plain=True, promised=partial(_field, offset=16, length=8, order="little", extra=0))
_W64_GUID = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
_ASF_GUID = b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c"
_FLAC = Format("flac", tells_duration=True)
_MP3 = Format("mp3")
_MP3_COUNTED = Format("mp3", tells_duration=True)
_ADTS = Format("aac")

_SIGNATURES: tuple[tuple[Callable[[bytes], bool], Format], ...] = (
    (_magic((0, b"RIFF"), (8, b"WAVE")), _WAV),
    (_magic((0, b"RIFX"), (8, b"WAVE")), Format("wav", plain=True, promised=_FORM)),
    (_magic((0, b"RF64"), (8, b"WAVE")), _RF64),
    (_magic((0, b"BW64"), (8, b"WAVE")), _RF64),
    (_magic((0, _W64_GUID)), _W64),
    (_magic((0, b"FORM"), (8, b"AIFF")), _AIFF),
    (_magic((0, b"FORM"), (8, b"AIFC")), _AIFF),
    (_magic((0, b"caff")), Format("caf", plain=True, promised=_caf)),
    (_magic((0, b".snd")), Format("au", plain=True, promised=_au)),
    (_magic((0, b"NIST_1A\n")), Format("nistsphere", plain=True)),
    (_magic((0, b"fLaC")), _FLAC),
    (_magic((0, b"OggS")), Format("ogg", promised=_ogg)),
    (_is_quicktime, Format("mov", promised=_mov, longest_gap_s=_PAUSED_S)),
    (_magic((0, b"\x1a\x45\xdf\xa3")), Format("matroska", promised=_matroska, longest_gap_s=_PAUSED_S)),
    (_magic((0, _ASF_GUID)), Format("asf", longest_gap_s=_PAUSED_S)),
    (_magic((0, b"RIFF"), (8, b"AVI ")), Format("avi", promised=_RIFF)),
    (_magic((0, b"#!AMR")), Format("amr")),
    (_magic((0, b"wvpk")), Format("wv", tells_duration=True)),
    (_magic((0, b"FLV\x01")), Format("flv", longest_gap_s=_JUMPED_S)),
    (_magic((0, b"\x00\x00\x01\xba")), Format("mpeg", longest_gap_s=_JUMPED_S)),
    (_is_transport_stream, Format("mpegts", longest_gap_s=_JUMPED_S)),
    (lambda head: head.startswith(b"\x0b\x77") and len(head) > 5 and head[5] >> 3 <= 10, Format("ac3")),
    (lambda head: head.startswith(b"\x0b\x77") and len(head) > 5 and head[5] >> 3 <= 16, Format("eac3")),
)
_TAGGED = ((_magic((0, b"fLaC")), _FLAC),)

# Raw MPEG streams have no signature: frames that follow each other are one.
_KBITS = {  # [MPEG-1?][layer], by index; index 0 is `free`, 15 is forbidden
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}  # MPEG-1, 2, 2.5


def _frames_of_mpeg(head: bytes, *, ended: bool) -> Format | None:
    """MP3 or ADTS, if three frames stand in a row (or all that the file has), which chance does once in 10^7 files."""
    at = head.find(0xFF)
    while at >= 0:
        for measure, container in ((_mp3_frame, _MP3), (_adts_frame, _ADTS)):
            position, frames = at, 0
            while frames < 3 and (length := measure(head[position : position + 6])):
                position, frames = position + length, frames + 1
            if frames == 3 or (frames and at == 0 and ended and position == len(head)):
                counted = container is _MP3 and any(tag in head[at : at + 64] for tag in (b"Xing", b"Info", b"VBRI"))
                return _MP3_COUNTED if counted else container
        at = head.find(0xFF, at + 1)
    return None


def _mp3_frame(header: bytes) -> int:
    """Length of the MPEG-1, 2 or 2.5 frame that begins with `header`; 0 if none does (ISO 11172-3, 2.4.1.3)."""
    if len(header) < 4 or header[0] != 0xFF or header[1] < 0xE0:
        return 0
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    bitrate, rate, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if version == 1 or layer == 4 or bitrate in (0, 15) or rate == 3:
        return 0
    bits = 1000 * _KBITS[version == 3, layer][bitrate - 1]
    if layer == 1:
        return (12 * bits // _RATES[version][rate] + padding) * 4
    return (72 if layer == 3 and version != 3 else 144) * bits // _RATES[version][rate] + padding


def _adts_frame(header: bytes) -> int:
    """Length of the ADTS frame that begins with `header`; 0 if none does (ISO 13818-7, 6.2)."""
    if len(header) < 6 or header[0] != 0xFF or header[1] & 0xF6 != 0xF0 or header[2] >> 2 & 15 > 12:
        return 0
    length = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    return length if length > 7 else 0
