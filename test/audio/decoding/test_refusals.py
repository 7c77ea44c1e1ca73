"""Files that are refused, each with its cause, quickly and without opening another file."""

from __future__ import annotations

import os
import socket
import struct
import time
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from tones import tone, write_av, write_picture
from written_files import encoded, plain

from backend.audio.decoding import causes
from backend.audio.decoding.causes import CAUSES
from backend.audio.decoding.decode import decode, decode_fd
from backend.audio.decoding.protocol import new_store
from backend.audio.decoding.safe_open import open_regular_file
from backend.errors import UndecodableAudio


def refused(path: object, *, max_seconds: float = 60) -> str:
    """The cause for which the file is refused: quickly, and without naming the path."""
    begun = time.monotonic()
    with pytest.raises(UndecodableAudio) as caught:
        decode(str(path), max_seconds=max_seconds)
    assert time.monotonic() - begun < 5
    cause = str(caught.value).removeprefix("qwen-asr: cannot read the audio: ")
    assert cause in CAUSES
    assert Path(str(path).replace("\0", "")).name not in cause
    return cause


def test_a_video_without_sound_is_refused(tmp_path):
    path = tmp_path / "silent.mp4"
    with av.open(str(path), "w") as out:
        write_picture(out, out.add_stream("mpeg4", rate=10))
    assert refused(path) == causes.NO_SOUND_TRACK


@pytest.mark.parametrize("container", ["WAV", "FLAC", "MP3"])
def test_longer_than_the_limit_is_refused(tmp_path, container):
    path = tmp_path / "upload-name"
    soundfile.write(path, tone(seconds=3), 16_000, format=container)
    assert refused(path, max_seconds=2.9) == causes.TOO_LONG
    decode(str(path), max_seconds=3.2)


def decoded_before_refusal(path: Path, max_seconds: float) -> int:
    """Samples that were decoded before the file was refused for its length."""
    with open_regular_file(str(path)) as fd, new_store() as store:
        with pytest.raises(UndecodableAudio, match=causes.TOO_LONG):
            decode_fd(fd, store, max_seconds)
        return os.fstat(store).st_size // 4


@pytest.mark.parametrize("container", ["WAV", "AIFF", "CAF", "W64", "FLAC", "mp4", "mov"])
def test_a_file_whose_headers_say_rightly_that_it_is_too_long_is_refused_before_it_is_decoded(tmp_path, container):
    path, sound = tmp_path / "upload-name", np.zeros(16_000 * 120, np.float32)
    is_sound_file = container.isupper()
    path.write_bytes(plain(sound, container=container) if is_sound_file else encoded(container, [sound[:, None]]))
    assert decoded_before_refusal(path, 60) == 0
    assert decode(str(path), max_seconds=121).duration_s == pytest.approx(120, abs=0.2)


def test_a_flac_whose_header_says_wrongly_that_it_is_too_long_is_decoded(tmp_path):
    content = bytearray(plain(np.zeros(16_000 * 50, np.float32), container="FLAC"))
    content[21] |= 0x0F  # of the number of samples, which has 36 bits
    (tmp_path / "long.flac").write_bytes(content)
    assert decode(str(tmp_path / "long.flac"), max_seconds=60).duration_s == 50


def test_the_parts_of_joined_files_are_too_long_together(tmp_path):
    path, minute = tmp_path / "joined.flac", plain(np.zeros(16_000 * 60, np.float32), container="FLAC")
    path.write_bytes(minute + minute)
    assert decoded_before_refusal(path, 90) <= 60 * 16_000
    assert decode(str(path), max_seconds=120).duration_s == 120


def test_what_is_no_regular_file_is_refused(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "fifo.wav")
    soundfile.write(tmp_path / "real.wav", tone(), 16_000)
    (tmp_path / "link.wav").symlink_to(tmp_path / "real.wav")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # a socket's name may have 108 bytes
        server.bind("socket.wav")
        for path in (tmp_path / "fifo.wav", tmp_path / "socket.wav", tmp_path, "/dev/zero"):
            assert refused(path) == causes.NOT_A_FILE
    assert refused(tmp_path / "link.wav") == causes.LINK
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    assert refused(tmp_path / "loop.wav") == causes.LINK


def test_every_cause_has_a_kind_of_its_own():
    assert set(causes.KINDS) == set(causes.CAUSES)
    assert len(set(causes.KINDS.values())) == len(causes.CAUSES)


@pytest.mark.parametrize(
    "path",
    [
        "/no/such/file.wav",
        "",
        "http://127.0.0.1:9/tone.wav",
        "file:///etc/hostname",
        "data:audio/wav;base64," + "QUJD" * 3000,
        "nul\0byte.wav",
        "concat:/etc/hostname",
        "lone\ud800.wav",
    ],
)
def test_what_is_no_path_is_refused(path):
    with pytest.raises(UndecodableAudio, match=causes.MISSING):
        decode(path, max_seconds=60)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_refused(tmp_path):
    path = tmp_path / "secret.wav"
    soundfile.write(path, tone(), 16_000)
    path.chmod(0)
    assert refused(path) == causes.UNREADABLE


def test_a_file_of_five_gigabytes_is_refused(tmp_path):
    path = tmp_path / "sparse.wav"
    soundfile.write(path, tone(), 16_000)
    os.truncate(path, 5 << 30)
    assert refused(path) == causes.TOO_LARGE


HEADER_ONLY = b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x80\x3e\0\0\0\x7d\0\0\2\0\x10\0data\0\0\0\0"


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", causes.EMPTY_FILE),
        (b"\0", causes.UNKNOWN_FORMAT),
        (bytes(10_000), causes.UNKNOWN_FORMAT),
        (b"\xff" * 10_000, causes.UNKNOWN_FORMAT),
        (np.random.default_rng(2).bytes(100_000), causes.UNKNOWN_FORMAT),
        (b"hello, this is text\n" * 100, causes.UNKNOWN_FORMAT),
        (b"<!doctype html><html></html>", causes.UNKNOWN_FORMAT),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), causes.UNKNOWN_FORMAT),
        (b"ID3", causes.UNKNOWN_FORMAT),
        (b"ID3\x04\0\0\0\0\0\0" * 5, causes.UNKNOWN_FORMAT),
        (HEADER_ONLY, causes.NO_SAMPLES),
        (HEADER_ONLY[:20], causes.DAMAGED),
        (b"OggS" + bytes(200), causes.DAMAGED),
        (b"fLaC" + bytes(200), causes.DAMAGED),
        (b"\x1a\x45\xdf\xa3" + bytes(200), causes.DAMAGED),
        (b"\0\0\0\x18ftypmp42" + bytes(200), causes.DAMAGED),
        (b"\x0b\x77\0\0\0\x40" + bytes(200), causes.DAMAGED),
    ],
)
def test_what_is_no_sound_is_refused(tmp_path, content, cause):
    path = tmp_path / "upload-name.wav"
    path.write_bytes(content)
    assert refused(path) == cause


@pytest.mark.parametrize(
    "playlist",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{other}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{other}'\n",
        "file '{other}'\n",
        "[playlist]\nFile1={other}\nNumberOfEntries=1\n",
        "<?xml version='1.0'?><MPD><BaseURL>{other}</BaseURL></MPD>",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
    ],
)
def test_a_playlist_never_opens_another_file(tmp_path, playlist):
    soundfile.write(tmp_path / "other.wav", tone(), 16_000)
    path = tmp_path / "evil.wav"
    path.write_text(playlist.format(other=tmp_path / "other.wav"))
    assert refused(path) == causes.UNKNOWN_FORMAT


def test_a_movie_never_opens_the_file_that_it_refers_to(tmp_path):
    movie, path = tmp_path / "other.mov", tmp_path / "evil.mov"
    write_av(movie, "pcm_s16le", "mov")
    path.write_bytes(with_reference_to(str(movie), movie.read_bytes()))
    with av.open(str(path), container_options={"enable_drefs": "1", "use_absolute_path": "1"}) as followed:
        assert sum(frame.samples for frame in followed.decode(audio=0)) > 0  # the reference works, where it is allowed
    path.write_bytes(path.read_bytes())
    assert refused(path) == causes.NO_SAMPLES


def with_reference_to(target: str, mov: bytes) -> bytes:
    """The movie with its sound replaced by an alias (kind `alis`, an absolute path) to another file."""
    name = target.encode() + b"\0" * (len(target) % 2)
    body = (
        bytes(6)
        + struct.pack(">H", 0)
        + bytes(142)
        + struct.pack(">hH", 2, len(name))
        + name
        + struct.pack(">hH", -1, 0)
    )
    at = mov.index(b"dref") + 12  # the first entry's size
    entry = struct.pack(">I", 12 + len(body)) + b"alis" + bytes(4) + body
    old = struct.unpack(">I", mov[at : at + 4])[0]
    changed = bytearray(mov[:at] + entry + mov[at + old :])
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        place = changed.rindex(box, 0, at) - 4
        size = struct.unpack(">I", changed[place : place + 4])[0]
        changed[place : place + 4] = struct.pack(">I", size + len(entry) - old)
    return bytes(changed)


@pytest.mark.parametrize("rate", [1, 3_999, 768_001])
def test_a_sample_rate_out_of_range_is_refused(tmp_path, rate):
    path = tmp_path / "rate.wav"
    soundfile.write(path, tone(), rate)
    assert refused(path, max_seconds=1e9) == causes.BAD_RATE


@pytest.mark.parametrize("channels", [33, 255])
def test_more_than_32_channels_are_refused(tmp_path, channels):
    path = tmp_path / "channels.wav"
    soundfile.write(path, np.zeros((100, channels)), 16_000)
    assert refused(path) == causes.TOO_MANY_CHANNELS


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("codec", "rate"), [("FLOAT", 16_000), ("DOUBLE", 44_100)])
def test_samples_that_are_not_finite_are_refused(tmp_path, bad, codec, rate):
    path = tmp_path / "nan.wav"
    sound = tone(rate, channels=2)
    sound[-1, 1] = bad
    soundfile.write(path, sound, rate, subtype=codec)
    assert refused(path) == causes.NOT_FINITE


def test_samples_that_are_not_finite_are_refused_even_if_resampling_drops_them(tmp_path):
    path = tmp_path / "nan.wav"
    soundfile.write(path, np.full(3, np.nan), 768_000, subtype="FLOAT")
    assert refused(path) == causes.NOT_FINITE


def test_samples_that_add_up_to_infinity_are_refused(tmp_path):
    path = tmp_path / "huge.wav"
    soundfile.write(path, np.sign(tone(48_000)) * np.finfo(np.float32).max, 48_000, subtype="FLOAT")
    assert refused(path) == causes.NOT_FINITE


def test_mutated_files_decode_or_are_refused(tmp_path):
    chance = np.random.default_rng(4)
    path = tmp_path / "mutant"
    for container in ("WAV", "AIFF", "CAF", "W64", "FLAC", "OGG", "MP3", "mp4", "matroska", "adts", "asf"):
        if container.isupper():
            soundfile.write(path, tone(seconds=0.3), 16_000, format=container)
        else:
            write_av(path, {"matroska": "libopus", "asf": "wmav2"}.get(container, "aac"), container)
        original = np.frombuffer(path.read_bytes(), np.uint8)
        for _ in range(15):
            mutant = original.copy()
            where = chance.integers(0, min(mutant.size, chance.choice([64, 400, mutant.size])), chance.integers(1, 12))
            mutant[where] = chance.integers(0, 256, where.size)
            path.write_bytes(mutant.tobytes())
            try:
                decoded = decode(str(path), max_seconds=60)
            except UndecodableAudio:
                pass  # and nothing else is raised
            else:
                assert decoded.samples.size >= 1
                assert np.abs(decoded.samples).max() <= 1
                assert decoded.duration_s <= 60
