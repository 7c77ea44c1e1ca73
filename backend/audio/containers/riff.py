"""RIFF, RIFX, RF64 and BW64 (WAV): where the sound lies, whatever the sizes in the headers are worth.

- A recorder that writes into a pipe states no size, and one that crashed an old one. Bytes behind `data` that are no
  chunk are sound; so are several data chunks, in their order.
- A size is used only to find the next chunk, or to report that the file ends early.
- Where the headers are in order, nothing is replaced: the decoder reads the file itself.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field

from backend.audio.containers.byte_reader import ByteOrder, first_nonzero, integer, is_printable, matches
from backend.audio.containers.formats import Extent
from backend.audio.containers.mpeg_frames import begins_with_frames
from backend.audio.containers.pieces import Piece

SLACK_BYTES = 16  # writers disagree about counting the chunk's own header and the padding byte

_MAX_CHUNKS = 10_000
_MAX_FORMAT_BYTES = 1 << 12
_MAX_SIZE = (1 << 32) - 1
_NAME = re.compile(rb"WAVE(?:fmt |ds64|JUNK|junk|LIST|bext|FLLR|PAD )")
_WAVE = re.compile(rb"(?:RIFF|RIFX|RF64|BW64).{4}" + _NAME.pattern, re.DOTALL)
_WAVE_BYTES = 16
_OTHER_FILES = (b"ID3", b"OggS", b"fLaC", b"FORM", b"caff", b"#!AM")
_FRAMES_BYTES = 1 << 13  # of three frames of MP3 or ADTS
_NAMES = frozenset(
    b"fmt |data|LIST|fact|bext|JUNK|junk|PAD |FLLR|cue |smpl|inst|id3 |ID3 |iXML|_PMX|axml|chna|PEAK|cart|acid".split(
        b"|"
    )
)


def is_unknown_size(stated: int) -> bool:
    """Writers to a pipe leave 0, about 2^31 (sox) or about 2^32 (ffmpeg) in a field of four bytes."""
    return stated == 0 or min(abs(stated - (1 << 31)), (1 << 32) - stated) < 1 << 17


@dataclass
class _Wave:
    """What has been found of a WAV that begins at `begin`."""

    fd: int
    begin: int
    size: int  # of the file
    format_chunk: bytes = b""
    data_bytes: int = 0  # by the ds64 chunk
    spans: list[tuple[int, int]] = field(default_factory=list)
    is_in_order: bool = True  # the sizes of its data chunks can be relied on
    is_cut_short: bool = False
    end: int = 0  # where something else begins: a file that was joined to it

    def __post_init__(self) -> None:
        self.magic = os.pread(self.fd, 4, self.begin)
        self.order: ByteOrder = "big" if self.magic == b"RIFX" else "little"


def wav_extent(fd: int, begin: int, size: int) -> Extent:
    """The extent of the WAV that begins at `begin`."""
    wave = _Wave(fd, begin, size)
    position, wave.end = begin + 12, size
    for _ in range(_MAX_CHUNKS):
        if position + 8 > size:
            break
        name, stated = os.pread(fd, 4, position), integer(fd, position + 4, 4, wave.order)
        if position > begin + 12 and _begins_wave(fd, position):
            wave.end = position
            break
        body = position + 8
        if name == b"ds64":
            wave.data_bytes = integer(fd, body + 8, 8, "little")
        elif name == b"fmt " and not wave.format_chunk:
            wave.format_chunk = os.pread(fd, min(stated, _MAX_FORMAT_BYTES), body)
        following = _add_data(wave, body, stated) if name == b"data" else _next_chunk(wave, body + stated, stated)
        if not following:
            break
        position = following
    riff_bytes = integer(fd, begin + 4, 4, wave.order)
    states_more = not is_unknown_size(riff_bytes) and begin + 8 + riff_bytes > size + SLACK_BYTES
    in_order = begin == 0 and wave.is_in_order and len(wave.spans) == 1
    content = () if in_order or not (wave.spans and wave.format_chunk) else _rewritten(wave)
    return Extent(wave.end, wave.is_cut_short or states_more, content=content)


def _add_data(wave: _Wave, body: int, stated: int) -> int:
    """Add the sound of a data chunk. The position of the chunk that follows, 0 if there is none."""
    if wave.magic in {b"RF64", b"BW64"} and stated == _MAX_SIZE and wave.data_bytes:
        stated = wave.data_bytes
    end, is_unknown = body + stated, is_unknown_size(stated)
    if stated and end <= wave.size and _begins_other_file(wave.fd, end):
        wave.spans.append((body, end))
        wave.end = end
        return 0
    following = _next_chunk(wave, end, stated) if end <= wave.size else 0
    if stated == 0 and (following or body >= wave.size):
        wave.is_in_order = False  # it is empty, and decoders would take what follows for its sound
        return following
    if stated and end <= wave.size and (following or _is_padding(wave, end)):
        wave.spans.append((body, end))
        return following
    if end > wave.size and not is_unknown:
        wave.is_cut_short = wave.is_cut_short or end > wave.size + SLACK_BYTES
        wave.spans.append((body, wave.size))
        return 0
    wave.is_in_order = False  # none or a stale size: sound to the end of the file, or to the file that was joined to it
    named = matches(wave.fd, [_NAME], body + 8, wave.size, 8)
    stop = next((at - 8 for at in named if _begins_wave(wave.fd, at - 8)), wave.size)
    wave.spans.append((body, _without_tag(wave.fd, stop)))
    return stop if stop < wave.size else 0


def _next_chunk(wave: _Wave, end: int, stated: int) -> int:
    """Where the next chunk begins after one that ends at `end`, with its padding byte or without; 0 if nowhere."""
    padded = end + (stated & 1)
    for position in (padded, end) if padded != end else (end,):
        if position + 8 <= wave.size and _begins_chunk(wave, position):
            wave.is_in_order = wave.is_in_order and position == padded
            return position
    return 0


def _begins_chunk(wave: _Wave, position: int) -> bool:
    name = os.pread(wave.fd, 4, position)
    stated = integer(wave.fd, position + 4, 4, wave.order)
    is_known = name in _NAMES or _begins_wave(wave.fd, position)
    return is_known or (is_printable(name) and position + 8 + stated <= wave.size + SLACK_BYTES)


def _begins_wave(fd: int, position: int) -> bool:
    return _WAVE.match(os.pread(fd, _WAVE_BYTES, position)) is not None


def _begins_other_file(fd: int, position: int) -> bool:
    head = os.pread(fd, _FRAMES_BYTES, position)
    return head.startswith(_OTHER_FILES) or begins_with_frames(head)


def _is_padding(wave: _Wave, end: int) -> bool:
    """Whether what follows the sound is too short for a chunk, zeros, or an MP3 player's tag."""
    return (
        wave.size - end < 8
        or first_nonzero(wave.fd, end, wave.size) == wave.size
        or _without_tag(wave.fd, wave.size) <= end
    )


def _without_tag(fd: int, end: int) -> int:
    """`end` without the ID3v1 tag before it, if there is one."""
    return end - 128 if os.pread(fd, 3, max(end - 128, 0)) == b"TAG" else end


def _rewritten(wave: _Wave) -> tuple[Piece, ...]:
    """The same sound behind a header whose sizes are true."""
    magic = b"RIFX" if wave.order == "big" else b"RIFF"
    pad = b"\0" * (len(wave.format_chunk) & 1)
    sound = sum(end - begin for begin, end in wave.spans)
    header = b"WAVEfmt " + len(wave.format_chunk).to_bytes(4, wave.order) + wave.format_chunk + pad + b"data"
    sizes = [min(size, _MAX_SIZE).to_bytes(4, wave.order) for size in (len(header) + 4 + sound, sound)]
    return (magic + sizes[0] + header + sizes[1], *wave.spans)
