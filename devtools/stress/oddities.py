"""Files and paths that people and attackers do send, each made once in every run.

Their expectation is known: what is sound is answered, what is not is refused. Sizes are sparse and silence compresses,
so the largest of them take little to make; what they cost the server is measured.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from devtools.stress.cases import Case, Expected
from devtools.stress.containers import encoded, plain, speech
from devtools.stress.sounds import long_sound, noise, text_of

_RATES = {1: "bad", 100: "bad", 3_999: "bad", 4_000: "good", 8_000: "good", 11_025: "good", 44_100: "good",
          192_000: "good", 768_000: "good", 768_001: "bad", 10_000_000: "bad"}  # fmt: skip
_CHANNELS = (1, 2, 3, 5, 8, 9, 16, 32, 33, 64)
_MOST_CHANNELS = 32
_FRAMES = (1, 2, 3, 10, 159, 160, 161, 400, 8_000)
_PLAYLISTS = {
    "HLS": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{other}\n#EXT-X-ENDLIST\n",
    "ffconcat": "ffconcat version 1.0\nfile '{other}'\n",
    "file list": "file '{other}'\n",
    "pls": "[playlist]\nFile1={other}\nNumberOfEntries=1\n",
    "DASH": "<?xml version='1.0'?><MPD><BaseURL>{other}</BaseURL></MPD>",
    "SDP": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
    "cue": 'FILE "{other}" WAVE\n  TRACK 01 AUDIO\n    INDEX 01 00:00:00\n',
    "tagged HLS": "ID3\x04\0\0\0\0\0\0#EXTM3U\n#EXTINF:2,\n{other}\n",
}
_NO_SOUND = {
    "empty": b"",
    "one byte": b"\0",
    "zeros": bytes(10_000),
    "ones": b"\xff" * 10_000,
    "text": b"hello, this is text\n" * 100,
    "html": b"<!doctype html><html><body>404</body></html>",
    "json": b'{"audio": "UklGRg=="}',
    "png": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "zip": b"PK\x03\x04" + bytes(100),
    "gzip": b"\x1f\x8b\x08" + bytes(100),
    "elf": b"\x7fELF" + bytes(1000),
    "random bytes": np.random.default_rng(3).bytes(50_000),
    "riff of nothing": b"RIFF\xff\xff\xff\xffWAVE" + bytes(100),
    "form of nothing": b"FORM\xff\xff\xff\xffAIFF" + bytes(100),
    "ogg of nothing": b"OggS" + bytes(500),
    "flac of nothing": b"fLaC" + bytes(500),
    "matroska of nothing": b"\x1a\x45\xdf\xa3" + bytes(500),
    "mp4 of nothing": b"\0\0\0\x18ftypmp42" + bytes(500),
    "id3 of nothing": b"ID3\x04\0\0\0\0\0\0" * 5,
}


def cases(folder: Path, *, is_brief: bool = False) -> Iterator[Case]:
    """In the brief form without the bombs, whose making and decoding takes half a minute."""
    for group in (_no_sound, _shapes, _playlists, _paths, *(() if is_brief else (_bombs,))):
        yield from group(folder)


def _no_sound(_folder: Path) -> Iterator[Case]:
    for name, content in _NO_SOUND.items():
        yield Case("no sound", name, "bad", content)
    for container, codec in (("WAV", "PCM_16"), ("AIFF", "PCM_16"), ("CAF", "PCM_16"), ("W64", "PCM_16"),
                             ("RF64", "PCM_16"), ("AU", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS")):  # fmt: skip
        nothing = plain(np.zeros((0, 1), np.float32), 16_000, container, codec)
        yield Case("no sound", f"{container} without frames", "bad", nothing)
    yield Case("no sound", "video without sound", "bad", encoded("mp4", "aac", 48_000, sound=False, picture=True))
    for value in (np.nan, np.inf, -np.inf):
        for codec in ("FLOAT", "DOUBLE"):
            for at in (0, 9_000, -1):
                samples = speech()
                samples[at] = value
                yield Case("no numbers", f"{value} at {at}, {codec}", "bad", plain(samples, 16_000, "WAV", codec))


def _shapes(_folder: Path) -> Iterator[Case]:
    for rate, expected in _RATES.items():
        content = plain(speech(), 16_000, "WAV", "PCM_16")
        changed = content[:24] + struct.pack("<II", rate, min(rate * 2, 0xFFFFFFFF)) + content[32:]
        yield Case("rates", f"{rate} Hz", expected, changed)  # type: ignore[arg-type] # the table has nothing else
    for channels in _CHANNELS:
        known: Expected = "good" if channels <= _MOST_CHANNELS else "bad"
        yield Case("channels", str(channels), known, plain(speech(channels=channels), 16_000, "WAV", "PCM_16"))
    content = plain(speech(), 16_000, "WAV", "PCM_16")
    yield Case("channels", "0", "bad", content[:22] + b"\0\0" + content[24:])
    for frames in _FRAMES:
        samples = noise(frames, frames / 16_000)
        yield Case("few samples", str(frames), "good", plain(samples, 16_000), text=text_of(samples))
        for rate in (8_000, 48_000, 768_000):
            yield Case("few samples", f"{frames} at {rate} Hz", "good", plain(samples, rate))
    for name, samples in (
        ("beyond one", noise(1, 1.0) * 100),
        ("denormal", noise(1, 1.0) * np.float32(1e-42)),
        ("silence", np.zeros(16_000, np.float32)),
        ("a constant", np.full(16_000, 0.5, np.float32)),
    ):
        yield Case("odd levels", name, "good", plain(samples, 16_000))
    yield Case("odd levels", "1e300", "either", plain(speech() * np.float32(1e30), 16_000, "WAV", "DOUBLE"))
    yield Case("odd levels", "a film", "good", encoded("mp4", "aac", 48_000, picture=True))


def _playlists(folder: Path) -> Iterator[Case]:
    other = folder / "other.wav"
    other.write_bytes(plain(speech(), 16_000))
    for name, playlist in _PLAYLISTS.items():
        yield Case("playlists", name, "bad", playlist.format(other=other).encode("latin-1"))


def _paths(folder: Path) -> Iterator[Case]:
    real = folder / "real.wav"
    real.write_bytes(plain(speech(), 16_000))
    if not (folder / "fifo.wav").exists():
        os.mkfifo(folder / "fifo.wav")
        (folder / "link.wav").symlink_to(real)
        (folder / "loop.wav").symlink_to(folder / "loop.wav")
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(folder / "socket.wav"))
        listening.close()  # the name stays
        (folder / "secret.wav").write_bytes(real.read_bytes())
        (folder / "secret.wav").chmod(0)
    inside = [f"{{folder}}/{name}" for name in ("missing.wav", "fifo.wav", "link.wav", "loop.wav", "socket.wav", "")]
    devices = ["/dev/zero", "/dev/null", "/dev/full", "/dev/stdin", "/dev/tty", "/proc/self/mem", "/proc/self/environ"]
    others = ["", " ", "/", ".", "{folder}/real.wav/", "{folder}/real.wav\0.txt", "{folder}/" + "x" * 5000, "-",
              "pipe:0", "fd:0", "http://127.0.0.1:9/a.wav", "https://127.0.0.1:9/a.wav", "file://{folder}/real.wav",
              "concat:{folder}/real.wav", "subfile:,,start,0,end,0,,:{folder}/real.wav", "data:audio/wav;base64,UklG",
              "data:audio/wav;base64," + "QUJD" * 3000]  # fmt: skip
    for path in (*inside, *devices, *others):
        yield Case("paths", repr(path[:60]), "bad", path=path)
    yield Case("paths", "unreadable", "good" if os.geteuid() == 0 else "bad", path="{folder}/secret.wav")


def _bombs(folder: Path) -> Iterator[Case]:
    """Small files of long sound, and large files of nothing."""
    for name, hours in (("6 h of silence in FLAC", 6.0), ("24 h of silence in FLAC", 24.0)):
        path = long_sound(folder / f"bomb{hours:g}.flac", hours * 3600)
        yield Case("bombs", name, "either" if hours <= 6 else "bad", path=f"{{folder}}/{path.name}")
    for gib, rate in ((5, 16_000), (3, 768_000), (3, 4_000)):
        path = folder / f"sparse{gib}-{rate}.wav"
        soundfile.write(path, np.zeros(rate // 100, np.int16), rate)
        header = bytearray(path.read_bytes()[:44])
        header[4:8] = header[40:44] = struct.pack("<I", min((gib << 30) - 44, 0xFFFFFF00))
        path.write_bytes(header)
        os.truncate(path, gib << 30)
        known: Expected = "either" if rate == 768_000 else "bad"
        yield Case("bombs", f"sparse WAV of {gib} GiB, {rate} Hz", known, path=f"{{folder}}/{path.name}")
