"""One real recording in every container and codec that the wheels can write: what the fuzzing starts from.

Made anew for each run by soundfile and PyAV, in memory. An encoder that a wheel lacks is left out and named.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

from devtools.stress.child import ROOT

_RECORDING = ROOT / "test/audio/set/01_en_trained.flac"
_SECONDS = 1.2

_BY_SOUNDFILE: Mapping[str, tuple[str, str]] = {
    "wav u8": ("WAV", "PCM_U8"),
    "wav s16": ("WAV", "PCM_16"),
    "wav s24": ("WAV", "PCM_24"),
    "wav s32": ("WAV", "PCM_32"),
    "wav f32": ("WAV", "FLOAT"),
    "wav f64": ("WAV", "DOUBLE"),
    "wav mulaw": ("WAV", "ULAW"),
    "wav alaw": ("WAV", "ALAW"),
    "wav ima adpcm": ("WAV", "IMA_ADPCM"),
    "wav ms adpcm": ("WAV", "MS_ADPCM"),
    "wav gsm": ("WAV", "GSM610"),
    "wavex": ("WAVEX", "PCM_16"),
    "rf64": ("RF64", "PCM_16"),
    "w64": ("W64", "PCM_16"),
    "aiff": ("AIFF", "PCM_16"),
    "aiff f32": ("AIFF", "FLOAT"),
    "caf": ("CAF", "PCM_16"),
    "caf alac": ("CAF", "ALAC_16"),
    "au": ("AU", "PCM_16"),
    "nist": ("NIST", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg vorbis": ("OGG", "VORBIS"),
    "ogg opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}
_BY_FFMPEG: Mapping[str, tuple[str, str, int]] = {
    "m4a aac": ("ipod", "aac", 44_100),
    "m4a alac": ("ipod", "alac", 16_000),
    "mp4 aac": ("mp4", "aac", 48_000),
    "3gp aac": ("3gp", "aac", 16_000),
    "mov s16": ("mov", "pcm_s16le", 16_000),
    "webm opus": ("webm", "libopus", 48_000),
    "mka mp3": ("matroska", "libmp3lame", 44_100),
    "mka f32": ("matroska", "pcm_f32le", 16_000),
    "mka vorbis": ("matroska", "libvorbis", 44_100),
    "adts aac": ("adts", "aac", 24_000),
    "ac3": ("ac3", "ac3", 48_000),
    "eac3": ("eac3", "eac3", 48_000),
    "wma": ("asf", "wmav2", 44_100),
    "mp2": ("mp2", "mp2", 48_000),
    "mpeg ts": ("mpegts", "mp2", 48_000),
    "avi": ("avi", "mp2", 48_000),
    "flv": ("flv", "aac", 44_100),
    "wavpack": ("wv", "wavpack", 16_000),
    "amr nb": ("amr", "libopencore_amrnb", 8_000),
}
_BIT_RATES = {"wmav2": 64_000}  # whose default is too low


@dataclass(frozen=True)
class Source:
    """`content` in the container `kind`."""

    kind: str
    content: bytes


def speech(rate: int = 16_000, channels: int = 1) -> NDArray[np.float32]:
    """The recording's first words at any rate, by plain repetition: shape (n, channels)."""
    samples, own = soundfile.read(_RECORDING, dtype="float32")
    chosen = samples[(np.arange(round(_SECONDS * rate)) * own / rate).astype(int)]
    return np.repeat(chosen[:, None], channels, axis=1).astype(np.float32)


def sources() -> tuple[list[Source], list[str]]:
    """All that can be written, and the names of those that cannot."""
    written = {kind: _written(write) for kind, write in _writers()}
    made = [Source(kind, content) for kind, content in written.items() if content is not None]
    return made, [kind for kind, content in written.items() if content is None]


def _written(write: Callable[[], bytes]) -> bytes | None:
    try:
        return write()
    except (av.FFmpegError, ValueError, soundfile.SoundFileError):
        return None


def _writers() -> Iterator[tuple[str, Callable[[], bytes]]]:
    for kind, (container, codec) in _BY_SOUNDFILE.items():
        yield kind, partial(plain, speech(), 16_000, container, codec)
    for kind, (container, codec, rate) in _BY_FFMPEG.items():
        yield kind, partial(encoded, container, codec, rate)


def plain(samples: NDArray[np.float32], rate: int, container: str = "WAV", codec: str = "FLOAT") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=container, subtype=codec)
    return file.getvalue()


def encoded(container: str, codec: str, rate: int, *, sound: bool = True, picture: bool = False) -> bytes:
    """The recording by FFmpeg's libraries; with `picture`, beside a second of video, or alone."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        shown = out.add_stream("mpeg4", rate=10) if picture else None
        heard: Any = out.add_stream(codec, rate=rate, layout="mono") if sound else None
        if heard is not None and codec in _BIT_RATES:
            heard.bit_rate = _BIT_RATES[codec]
        if shown is not None:
            shown.width, shown.height, shown.pix_fmt = 64, 48, "yuv420p"
            for _ in range(10):
                out.mux(shown.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
            out.mux(shown.encode(None))
        if heard is not None:
            whole = av.AudioFrame.from_ndarray(speech(rate).reshape(1, -1), format="flt", layout="mono")
            whole.sample_rate = rate
            size = heard.frame_size or 1024
            packer = av.AudioResampler(format=heard.format, layout="mono", rate=rate, frame_size=size)
            for frame in [*packer.resample(whole), *packer.resample(None)]:
                out.mux(heard.encode(frame))
            out.mux(heard.encode(None))
    return file.getvalue()
