"""Files, paths and options that people and attackers do send, and sound files to damage.

Large files are sparse or compressed silence, so they cost little to make; what they cost the server is measured.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

from devtools.server_process import DEMO_MODEL, ROOT
from devtools.stress.client import long_sound, noise
from devtools.stress.fakes import text_of
from devtools.stress.fuzz_runner import Case, Expected

_SOUNDFILE = {  # container and codec
    "wav u8": "WAV PCM_U8", "wav s16": "WAV PCM_16", "wav s24": "WAV PCM_24", "wav s32": "WAV PCM_32",
    "wav f32": "WAV FLOAT", "wav f64": "WAV DOUBLE", "wav mulaw": "WAV ULAW", "wav alaw": "WAV ALAW",
    "wav ima adpcm": "WAV IMA_ADPCM", "wav ms adpcm": "WAV MS_ADPCM", "wav gsm": "WAV GSM610", "wavex": "WAVEX PCM_16",
    "rf64": "RF64 PCM_16", "w64": "W64 PCM_16", "aiff": "AIFF PCM_16", "aiff f32": "AIFF FLOAT", "caf": "CAF PCM_16",
    "caf alac": "CAF ALAC_16", "au": "AU PCM_16", "nist": "NIST PCM_16", "flac": "FLAC PCM_16",
    "ogg vorbis": "OGG VORBIS", "ogg opus": "OGG OPUS", "mp3": "MP3 MPEG_LAYER_III",
}  # fmt: skip
_FFMPEG = {
    "m4a aac": ("ipod", "aac", 44_100), "m4a alac": ("ipod", "alac", 16_000), "mp4 aac": ("mp4", "aac", 48_000),
    "3gp aac": ("3gp", "aac", 16_000), "mov s16": ("mov", "pcm_s16le", 16_000), "mp2": ("mp2", "mp2", 48_000),
    "webm opus": ("webm", "libopus", 48_000), "mka mp3": ("matroska", "libmp3lame", 44_100),
    "mka f32": ("matroska", "pcm_f32le", 16_000), "mka vorbis": ("matroska", "libvorbis", 44_100),
    "adts aac": ("adts", "aac", 24_000), "ac3": ("ac3", "ac3", 48_000), "eac3": ("eac3", "eac3", 48_000),
    "wma": ("asf", "wmav2", 44_100), "mpeg ts": ("mpegts", "mp2", 48_000), "avi": ("avi", "mp2", 48_000),
    "flv": ("flv", "aac", 44_100), "wavpack": ("wv", "wavpack", 16_000), "amr nb": ("amr", "libopencore_amrnb", 8_000),
    "mxf": ("mxf_opatom", "pcm_s16le", 48_000), "tta": ("tta", "tta", 16_000),
}  # fmt: skip
CONTAINERS = (*_SOUNDFILE, *_FFMPEG)
ODD_INPUTS = (
    "as they are", "joined", "with tags", "no sound", "no numbers", "rates", "channels", "few samples", "odd levels",
    "playlists", "paths", "bombs", "known bad loads",
)  # fmt: skip
_RATES = (1, 100, 3_999, 4_000, 8_000, 11_025, 44_100, 192_000, 768_000, 768_001, 10_000_000)
_PLAYLISTS = {
    "HLS": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{other}\n#EXT-X-ENDLIST\n",
    "ffconcat": "ffconcat version 1.0\nfile '{other}'\n", "file list": "file '{other}'\n",
    "pls": "[playlist]\nFile1={other}\nNumberOfEntries=1\n",
    "DASH": "<?xml version='1.0'?><MPD><BaseURL>{other}</BaseURL></MPD>",
    "SDP": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
    "cue": 'FILE "{other}" WAVE\n  TRACK 01 AUDIO\n    INDEX 01 00:00:00\n',
    "tagged HLS": "ID3\x04\0\0\0\0\0\0#EXTM3U\n#EXTINF:2,\n{other}\n",
}  # fmt: skip
_NO_SOUND = {
    "empty": b"", "one byte": b"\0", "zeros": bytes(10_000), "ones": b"\xff" * 10_000,
    "text": b"hello, this is text\n" * 100, "html": b"<!doctype html><html><body>404</body></html>",
    "json": b'{"audio": "UklGRg=="}', "png": b"\x89PNG\r\n\x1a\n" + bytes(100), "zip": b"PK\x03\x04" + bytes(100),
    "gzip": b"\x1f\x8b\x08" + bytes(100), "elf": b"\x7fELF" + bytes(1000),
    "random bytes": np.random.default_rng(3).bytes(50_000),
    "riff of nothing": b"RIFF\xff\xff\xff\xffWAVE" + bytes(100),
    "form of nothing": b"FORM\xff\xff\xff\xffAIFF" + bytes(100), "ogg of nothing": b"OggS" + bytes(500),
    "flac of nothing": b"fLaC" + bytes(500), "matroska of nothing": b"\x1a\x45\xdf\xa3" + bytes(500),
    "mp4 of nothing": b"\0\0\0\x18ftypmp42" + bytes(500), "id3 of nothing": b"ID3\x04\0\0\0\0\0\0" * 5,
}  # fmt: skip
_PATHS = (
    *(f"{{folder}}/{name}" for name in ("missing.wav", "fifo.wav", "link.wav", "loop.wav", "socket.wav", "")),
    "/dev/zero", "/dev/null", "/dev/full", "/dev/stdin", "/dev/tty", "/proc/self/mem", "/proc/self/environ",
    "", " ", "/", ".", "{folder}/real.wav/", "{folder}/real.wav\0.txt", "{folder}/" + "x" * 5000, "-", "pipe:0", "fd:0",
    "http://127.0.0.1:9/a.wav", "https://127.0.0.1:9/a.wav", "file://{folder}/real.wav", "concat:{folder}/real.wav",
    "subfile:,,start,0,end,0,,:{folder}/real.wav", "data:audio/wav;base64,UklG",
    "data:audio/wav;base64," + "QUJD" * 3000,
)  # fmt: skip
_NO_NUMBERS = ("nan", "inf", "-inf", "", "0x10", "abc", "1,5", "--1", "²", "9" * 5000)
BAD_OPTIONS = (
    *(f"{name}:{value}" for name in ("max_new_tokens", "batch_max_size", "max_chunk_seconds", "vad_threshold",
                                     "max_audio_seconds", "max_segment_chars") for value in _NO_NUMBERS),
    "max_new_tokens:0", "max_new_tokens:-5", "max_new_tokens:8193", "batch_max_size:0", "batch_max_size:257",
    "max_chunk_seconds:1", "max_chunk_seconds:181", "vad:maybe", "torch_dtype:int4", "attn_implementation:evil/kernel",
    "attn_implementation:flash_attention_3", "trust_remote_code:true", "_attn_implementation_internal:x", "unknown:1",
    "no colon", ":", "MAX_NEW_TOKENS:5", "revision:", "revision:../up", "revision:a b", "revision:/main",
    "forced_aligner_revision:..", "forced_aligner_revision:" + "x" * 5000,
    *(f"forced_aligner:{name}" for name in ("a:b", "no-owner", "/nowhere/aligner", "a/b/c", "../up", "https://evil/x",
                                            "x\0y", "y" * 5000, "/dev/null", "/proc/self", ROOT, DEMO_MODEL)),
)  # fmt: skip
BAD_FIELDS: tuple[Mapping[str, Any], ...] = (
    {"Quantization": "int4"}, {"Quantization": "awq"}, {"DType": "int8"}, {"LoraAdapter": "a"}, {"MainGPU": "cuda:x"},
    {"LoraAdapters": ["a"]}, {"TensorParallelSize": 2}, {"MainGPU": "-1"}, {"MainGPU": "²"}, {"MainGPU": "9" * 5000},
    {"FlashAttention": "3"}, {"EngineArgs": "{"}, {"EngineArgs": "[]"}, {"EngineArgs": '{"vad": null}'},
    {"EngineArgs": '{"nothing": 1}'}, {"EngineArgs": "[" * 200_000}, {"EngineArgs": '{"max_new_tokens": 1e999}'},
    {"EngineArgs": '{"max_new_tokens": ' + "9" * 5000 + "}"}, {"EngineArgs": '{"max_new_tokens": NaN}'},
)  # fmt: skip


def speech(rate: int = 16_000, channels: int = 1) -> NDArray[np.float32]:
    """The first 1.2 s of a recording at any rate, by plain repetition; shape (n, channels)."""
    samples, own = soundfile.read(ROOT / "test/audio/set/01_en_trained.flac", dtype="float32")
    chosen = samples[(np.arange(round(1.2 * rate)) * own / rate).astype(int)]
    return np.repeat(chosen[:, None], channels, axis=1).astype(np.float32)


def plain(samples: NDArray[np.float32], rate: int = 16_000, container: str = "WAV", codec: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=container, subtype=codec)
    return file.getvalue()


def encoded(container: str, codec: str, rate: int, *, sound: bool = True, picture: bool = False) -> bytes:
    """The recording by FFmpeg's libraries; `picture`: with a second of video."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        video = out.add_stream("mpeg4", rate=10) if picture else None
        audio: Any = out.add_stream(codec, rate=rate, layout="mono") if sound else None
        if video is not None:
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
            black = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
            for image in [*[black] * 10, None]:
                out.mux(video.encode(image))
        if audio is not None:
            if codec == "wmav2":
                audio.bit_rate = 64_000  # the default is too low
            whole = av.AudioFrame.from_ndarray(speech(rate).reshape(1, -1), format="flt", layout="mono")
            whole.sample_rate = rate
            size = audio.frame_size or 1024
            resampler = av.AudioResampler(format=audio.format, layout="mono", rate=rate, frame_size=size)
            for frame in [*resampler.resample(whole), *resampler.resample(None), None]:
                out.mux(audio.encode(frame))
    return file.getvalue()


@functools.cache
def containers() -> Mapping[str, bytes]:
    """The recording in all CONTAINERS that the installed wheels can write."""
    written = {}
    for name in CONTAINERS:
        with contextlib.suppress(av.FFmpegError, ValueError, soundfile.SoundFileError):
            codec = _SOUNDFILE.get(name, "").split()
            written[name] = plain(speech(), 16_000, *codec) if codec else encoded(*_FFMPEG[name])
    return written


def _no_sound() -> Iterator[Case]:
    for name, content in _NO_SOUND.items():
        yield Case("no sound", name, "bad", content)
    for container in ("WAV", "AIFF", "CAF", "W64", "RF64", "AU", "FLAC", "OGG"):
        codec = "VORBIS" if container == "OGG" else "PCM_16"
        nothing = plain(np.zeros((0, 1), np.float32), 16_000, container, codec)
        yield Case("no sound", f"{container} without frames", "bad", nothing)
    yield Case("no sound", "video without sound", "bad", encoded("mp4", "aac", 48_000, sound=False, picture=True))
    for value, codec, at in itertools.product((np.nan, np.inf, -np.inf), ("FLOAT", "DOUBLE"), (0, 9_000, -1)):
        samples = speech()
        samples[at] = value
        yield Case("no numbers", f"{value} at {at}, {codec}", "bad", plain(samples, codec=codec))


def _sound() -> Iterator[Case]:
    for name, content in containers().items():
        yield Case("as they are", name, "good", content)
        yield Case("joined", f"{name} twice", "good", content * 2)
        tag = b"ID3\4\0\0\0\0\1\0" + bytes(128)
        yield Case("with tags", f"{name} behind a tag and zeros", "good", tag * 2 + bytes(1000) + content)
    content = plain(speech())
    for rate in _RATES:
        header = content[:24] + struct.pack("<II", rate, min(rate * 2, 0xFFFFFFFF))
        yield Case("rates", f"{rate} Hz", "good" if 4_000 <= rate <= 768_000 else "bad", header + content[32:])
    for channels in (1, 2, 3, 5, 8, 9, 16, 32, 33, 64):
        yield Case("channels", str(channels), "good" if channels <= 32 else "bad", plain(speech(channels=channels)))
    yield Case("channels", "0", "bad", content[:22] + b"\0\0" + content[24:])
    for frames in (1, 2, 3, 10, 159, 160, 161, 400, 8_000):
        samples = noise(frames, frames / 16_000)
        yield Case("few samples", str(frames), "good", plain(samples, codec="FLOAT"), text=text_of(samples))
        for rate in (8_000, 48_000, 768_000):
            yield Case("few samples", f"{frames} at {rate} Hz", "good", plain(samples, rate, codec="FLOAT"))
    levels = {"beyond one": noise(1, 1.0) * 100, "denormal": noise(1, 1.0) * np.float32(1e-42),
              "silence": np.zeros(16_000, np.float32), "a constant": np.full(16_000, 0.5, np.float32)}  # fmt: skip
    for name, samples in levels.items():
        yield Case("odd levels", name, "good", plain(samples, codec="FLOAT"))
    yield Case("odd levels", "1e300", "either", plain(speech() * np.float32(1e30), codec="DOUBLE"))
    yield Case("odd levels", "a film", "good", encoded("mp4", "aac", 48_000, picture=True))


def _other_files(folder: Path) -> Iterator[Case]:
    """Playlists and paths, which lead to other files."""
    real, secret = folder / "real.wav", folder / "secret.wav"
    for path in (real, secret):
        path.write_bytes(plain(speech(), codec="FLOAT"))
    for name, playlist in _PLAYLISTS.items():
        yield Case("playlists", name, "bad", playlist.format(other=real).encode("latin-1"))
    secret.chmod(0)
    os.mkfifo(folder / "fifo.wav")
    (folder / "link.wav").symlink_to(real)
    (folder / "loop.wav").symlink_to(folder / "loop.wav")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "socket.wav"))  # the file stays
    for sent in _PATHS:
        yield Case("paths", repr(sent[:60]), "bad", path=sent)
    yield Case("paths", "unreadable", "good" if os.geteuid() == 0 else "bad", path="{folder}/secret.wav")


def _bombs(folder: Path) -> Iterator[Case]:
    """Small files of long sound, and large files of nothing."""
    for hours in (6, 7, 24):
        long_sound(folder / f"bomb{hours}.flac", hours * 3600)
        expected: Expected = "either" if hours == 6 else "bad"
        yield Case("bombs", f"{hours} h of silence in FLAC", expected, path=f"{{folder}}/bomb{hours}.flac")
    for gib, rate in ((5, 16_000), (3, 768_000), (3, 4_000)):
        path = folder / f"sparse{gib}-{rate}.wav"
        header = bytearray(plain(np.zeros(rate // 100, np.float32), rate)[:44])
        header[4:8] = header[40:44] = struct.pack("<I", min((gib << 30) - 44, 0xFFFFFF00))
        path.write_bytes(header)
        os.truncate(path, gib << 30)
        expected = "either" if rate == 768_000 else "bad"
        yield Case("bombs", f"sparse WAV of {gib} GiB, {rate} Hz", expected, path=f"{{folder}}/{path.name}")


def _known_bad_loads() -> Iterator[Case]:
    for request in (*({"Options": [option]} for option in BAD_OPTIONS), *BAD_FIELDS):
        yield Case("known bad loads", str(request)[:60], "bad", request=request, load=True)


def odd_inputs(kind: str, folder: Path) -> list[Case]:
    """The cases of one of ODD_INPUTS, none for another kind. The files that paths lead to are written into `folder`."""
    return [case for case in (_bombs(folder) if kind == "bombs" else _all_but_bombs(folder)) if case.kind == kind]


@functools.cache
def _all_but_bombs(folder: Path) -> list[Case]:
    return [*_sound(), *_no_sound(), *_other_files(folder), *_known_bad_loads()]
