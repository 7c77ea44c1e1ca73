"""The containers and codecs that are decoded, and what is known about each container: an allow list."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from backend.audio.containers.byte_reader import matches
from backend.audio.containers.pieces import Piece

# Codecs that libsndfile decodes sample by sample, and to their end.
PLAIN_CODECS = (
    "PCM_S8 PCM_U8 PCM_16 PCM_24 PCM_32 FLOAT DOUBLE ULAW ALAW IMA_ADPCM MS_ADPCM GSM610 ALAC_16 ALAC_20 ALAC_24"
    " ALAC_32"
)

# FFmpeg's decoders for what recorders and players write. The hundreds for game archives and the like are not allowed,
# nor any for video, which FFmpeg would otherwise run while it probes a file.
CODECS = (
    "aac,aac_latm,ac3,adpcm_g726,adpcm_g726le,adpcm_ima_qt,adpcm_ima_wav,adpcm_ms,adpcm_swf,adpcm_yamaha,alac,amrnb,amrwb,"
    "dca,eac3,flac,g722,g723_1,g726,g726le,g729,gsm,gsm_ms,ilbc,libopencore_amrnb,libopencore_amrwb,libopus,libspeex,"
    "libvorbis,mlp,mp1,mp1float,mp2,mp2float,mp3,mp3float,nellymoser,opus,pcm_alaw,pcm_bluray,pcm_dvd,pcm_f32be,pcm_f32le,"
    "pcm_f64be,pcm_f64le,pcm_mulaw,pcm_s16be,pcm_s16be_planar,pcm_s16le,pcm_s16le_planar,pcm_s24be,pcm_s24le,"
    "pcm_s24le_planar,pcm_s32be,pcm_s32le,pcm_s32le_planar,pcm_s8,pcm_s8_planar,pcm_u8,qdm2,s302m,speex,truehd,"
    "truespeech,tta,vorbis,wavpack,wmalossless,wmapro,wmav1,wmav2,wmavoice"
)


class Extent(NamedTuple):
    """How far a container reaches by its own headers. `end`: a position in the file, 0 if it states none.

    `is_searched`: the end is only where something like another file begins. `content`: what to give to a decoder
    instead of the bytes, where the headers are stale or incomplete.
    """

    end: int = 0
    is_cut_short: bool = False
    is_searched: bool = False
    content: tuple[Piece, ...] = ()


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
    extent: Callable[[int, int, int], Extent] | None = None  # of (fd, where it begins, the file's size)
    max_gap_s: float = 0.0  # longest gap in the packets' timestamps; 0: FFmpeg counts or guesses the timestamps


def searched_extent(fd: int, begin: int, size: int, *, header: re.Pattern[bytes], length: int) -> Extent:
    """To the next `header`, of at most `length` bytes, of a container that states no size of its own."""
    return Extent(next(matches(fd, [header], begin + length, size, length), 0), is_searched=True)
