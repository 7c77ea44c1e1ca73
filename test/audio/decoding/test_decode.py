"""Every container people send, and every file that is not one. Files are made here, by soundfile and PyAV."""

from __future__ import annotations

import os
import socket
import struct
import time
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from backend.audio.decoding import causes
from backend.audio.decoding.causes import CAUSES
from backend.audio.decoding.decode import decode
from backend.audio.decoding.ffmpeg import _GapFinder
from backend.audio.waveform import Decoded
from backend.errors import UndecodableAudio

TONE_HZ = 440
LEVEL = 0.4


def tone(rate: int = 16_000, seconds: float = 2.0, channels: int = 1) -> NDArray[np.float32]:
    wave = LEVEL * np.sin(2 * np.pi * TONE_HZ * np.arange(round(rate * seconds)) / rate)
    return np.repeat(wave[:, None], channels, axis=1).astype(np.float32)


def assert_is_the_tone(decoded: Decoded, seconds: float = 2.0, slack_s: float = 0.0) -> None:
    """Frequency, level and length; lossy codecs may pad by `slack_s`."""
    samples = decoded.samples
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert abs(samples.size - 16_000 * decoded.duration_s) <= 1
    assert abs(decoded.duration_s - seconds) <= slack_s + 1e-9
    middle = samples[samples.size // 4 : samples.size * 3 // 4]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(middle.size)))
    assert spectrum.argmax() * 16_000 / middle.size == pytest.approx(TONE_HZ, abs=3)
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(LEVEL / np.sqrt(2), rel=0.05)


def write_av(path: Path, codec: str, container: str, *, rate: int = 48_000, channels: int = 1, picture: bool = False):
    """The tone, encoded by PyAV; with `picture`, beside two seconds of video."""
    layout = {1: "mono", 2: "stereo", 8: "7.1"}[channels]
    with av.open(str(path), "w", format=container) as out:
        sound = out.add_stream(codec, rate=rate, layout=layout)
        sound.bit_rate = 64_000 * channels
        shown = out.add_stream("mpeg4", rate=10) if picture else None
        if shown:
            write_picture(out, shown)
        packer = av.AudioResampler(format=sound.format, layout=layout, rate=rate, frame_size=sound.frame_size or 1024)
        whole = av.AudioFrame.from_ndarray(tone(rate, channels=channels).reshape(1, -1), format="flt", layout=layout)
        whole.sample_rate = rate
        for frame in [*packer.resample(whole), *packer.resample(None)]:
            out.mux(sound.encode(frame))
        out.mux(sound.encode(None))


def write_picture(out, shown) -> None:
    shown.width, shown.height, shown.pix_fmt = 64, 48, "yuv420p"
    for _ in range(20):
        out.mux(shown.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
    out.mux(shown.encode(None))


def refused(path: object, *, max_seconds: float = 60) -> str:
    """The cause for which a file is refused, at once, without a word of the path."""
    begun = time.monotonic()
    with pytest.raises(UndecodableAudio) as caught:
        decode(str(path), max_seconds=max_seconds)
    assert time.monotonic() - begun < 5
    cause = str(caught.value).removeprefix("qwen-asr: cannot read the audio: ")
    assert cause in CAUSES
    assert Path(str(path).replace("\0", "")).name not in cause
    return cause


@pytest.mark.parametrize(
    ("container", "codec", "slack_s"),
    [
        ("WAV", "PCM_U8", 0),
        ("WAV", "PCM_16", 0),
        ("WAV", "PCM_24", 0),
        ("WAV", "PCM_32", 0),
        ("WAV", "FLOAT", 0),
        ("WAV", "DOUBLE", 0),
        ("WAV", "ULAW", 0),
        ("WAV", "ALAW", 0),
        ("WAV", "IMA_ADPCM", 0.1),
        ("WAV", "MS_ADPCM", 0.1),
        ("WAVEX", "PCM_16", 0),
        ("RF64", "PCM_16", 0),
        ("W64", "PCM_16", 0),
        ("AIFF", "PCM_16", 0),
        ("AIFF", "FLOAT", 0),
        ("CAF", "PCM_16", 0),
        ("CAF", "ALAC_16", 0),
        ("AU", "PCM_16", 0),
        ("NIST", "PCM_16", 0),
        ("FLAC", "PCM_16", 0),
        ("OGG", "VORBIS", 0.05),
        ("OGG", "OPUS", 0),
        ("MP3", "MPEG_LAYER_III", 0.1),
    ],
)
def test_what_libsndfile_writes_is_read(tmp_path, container, codec, slack_s):
    path = tmp_path / "tone.bin"
    soundfile.write(path, tone(), 16_000, format=container, subtype=codec)
    decoded = decode(str(path), max_seconds=60)
    assert_is_the_tone(decoded, slack_s=slack_s)
    assert not decoded.truncated


@pytest.mark.parametrize(
    ("name", "codec", "container"),
    [
        ("tone.m4a", "aac", "ipod"),
        ("tone.m4a", "alac", "ipod"),
        ("tone.3gp", "aac", "3gp"),
        ("tone.mov", "pcm_s16le", "mov"),
        ("tone.webm", "libopus", "webm"),
        ("tone.mka", "libmp3lame", "matroska"),
        ("tone.mka", "pcm_f32le", "matroska"),
        ("tone.aac", "aac", "adts"),
        ("tone.ac3", "ac3", "ac3"),
        ("tone.eac3", "eac3", "eac3"),
        ("tone.wma", "wmav2", "asf"),
        ("tone.mp2", "mp2", "mp2"),
        ("tone.ts", "mp2", "mpegts"),
        ("tone.avi", "mp2", "avi"),
        ("tone.flv", "aac", "flv"),
        ("tone.wv", "wavpack", "wv"),
        ("tone.wav", "adpcm_swf", "wav"),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_what_ffmpeg_writes_is_read(tmp_path, name, codec, container, channels):
    path = tmp_path / name
    rate = 44_100 if codec in {"adpcm_swf", "aac", "wmav2"} else 48_000
    write_av(path, codec, container, rate=rate, channels=channels)
    assert_is_the_tone(decode(str(path), max_seconds=60), slack_s=0.1)


@pytest.mark.parametrize("container", ["mp4", "matroska", "avi", "mpegts"])
def test_the_sound_of_a_video_is_read(tmp_path, container):
    path = tmp_path / "video"
    write_av(path, "mp2", container, picture=True)
    assert_is_the_tone(decode(str(path), max_seconds=60), slack_s=0.1)


def test_a_video_without_sound_is_refused(tmp_path):
    path = tmp_path / "silent.mp4"
    with av.open(str(path), "w") as out:
        write_picture(out, out.add_stream("mpeg4", rate=10))
    assert refused(path) == causes.NO_SOUND_TRACK


def test_eight_planar_channels_do_not_crash_the_process(tmp_path):
    path = tmp_path / "surround.m4a"
    write_av(path, "aac", "ipod", channels=8)
    assert decode(str(path), max_seconds=60).duration_s == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("rate", [4_000, 8_000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000, 768_000])
@pytest.mark.parametrize("container", ["WAV", "FLAC"])
def test_any_rate_becomes_16_khz(tmp_path, rate, container):
    if container == "FLAC" and rate > 655_350:
        pytest.skip("FLAC has no such rate")
    path = tmp_path / "tone"
    soundfile.write(path, tone(rate), rate, format=container)
    decoded = decode(str(path), max_seconds=60)
    assert_is_the_tone(decoded)
    assert decoded.samples.size == 32_000


@pytest.mark.parametrize("channels", [1, 2, 3, 8, 9, 32])
def test_channels_are_averaged(tmp_path, channels):
    path = tmp_path / "many.wav"
    sound = tone(channels=channels)
    sound[:, 1:] = 0
    soundfile.write(path, sound, 16_000, subtype="FLOAT")
    np.testing.assert_allclose(decode(str(path), max_seconds=60).samples, sound[:, 0] / channels, atol=1e-7)


def test_samples_at_16_khz_are_left_alone(tmp_path):
    path = tmp_path / "exact.wav"
    sound = np.random.default_rng(1).uniform(-1, 1, 300_000).astype(np.float32)  # more than one block
    soundfile.write(path, sound, 16_000, subtype="FLOAT")
    np.testing.assert_array_equal(decode(str(path), max_seconds=60).samples, sound)


@pytest.mark.parametrize("rate", [8_000, 16_000, 48_000, 768_000])
@pytest.mark.parametrize("frames", [1, 2, 3])
def test_a_single_sample_is_a_recording(tmp_path, rate, frames):
    path = tmp_path / "short.wav"
    soundfile.write(path, np.full(frames, 0.1), rate)
    decoded = decode(str(path), max_seconds=60)
    assert abs(decoded.samples.size - frames * 16_000 / rate) <= 1
    assert decoded.samples.size >= 1
    assert decoded.duration_s == pytest.approx(frames / rate)


def test_float_beyond_one_is_scaled_by_its_peak(tmp_path):
    path = tmp_path / "loud.wav"
    sound = tone()[:, 0] * 10
    soundfile.write(path, sound, 16_000, subtype="FLOAT")
    np.testing.assert_allclose(decode(str(path), max_seconds=60).samples, sound / np.abs(sound).max(), atol=1e-6)


@pytest.mark.parametrize("name", ["tone.mp3", "tone.txt", "tone.m3u8", "tone", "日本 🎤.wav"])
def test_the_content_decides_and_not_the_name(tmp_path, name):
    path = tmp_path / name
    soundfile.write(path, tone(), 16_000, format="WAV")
    assert_is_the_tone(decode(str(path), max_seconds=60))


def test_tags_before_the_sound_are_passed_over(tmp_path):
    path = tmp_path / "tagged.mp3"
    soundfile.write(path, tone(), 16_000, format="MP3")
    path.write_bytes(b"ID3\x04\x00\x00\x00\x00\x7f\x7f" + bytes(0x3FFF) + path.read_bytes())
    assert_is_the_tone(decode(str(path), max_seconds=60), slack_s=0.1)


def test_a_tag_in_an_old_encoding_is_no_reason_to_refuse_the_sound(tmp_path):
    path = tmp_path / "tagged.flac"
    with soundfile.SoundFile(path, "w", 16_000, 1) as file:
        file.title = "TITLE"
        file.write(tone())
    assert b"TITLE" in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(b"=TITLE", b"=T\xcfTL\xcb"))
    assert_is_the_tone(decode(str(path), max_seconds=60))


@pytest.mark.parametrize(("container", "seconds"), [("MP3", 4.0), ("OGG", 4.0), ("FLAC", 4.0)])
def test_joined_files_are_read_to_their_end(tmp_path, container, seconds):
    path = tmp_path / "joined"
    soundfile.write(path, tone(44_100), 44_100, format=container)
    path.write_bytes(path.read_bytes() * 2)
    assert_is_the_tone(decode(str(path), max_seconds=60), seconds, slack_s=0.2)


def test_joined_files_may_change_their_rate(tmp_path):
    write_av(tmp_path / "a", "aac", "adts", rate=44_100)
    write_av(tmp_path / "b", "aac", "adts", rate=24_000)
    (tmp_path / "ab").write_bytes((tmp_path / "a").read_bytes() + (tmp_path / "b").read_bytes())
    assert_is_the_tone(decode(str(tmp_path / "ab"), max_seconds=60), 4.0, slack_s=0.2)


@pytest.mark.parametrize("stated", [0, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_wav_from_a_pipe_promises_nothing(tmp_path, stated):
    path = tmp_path / "piped.wav"
    soundfile.write(path, tone(), 16_000)
    wav = bytearray(path.read_bytes())
    wav[4:8] = wav[40:44] = struct.pack("<I", stated)
    path.write_bytes(wav)
    decoded = decode(str(path), max_seconds=60)
    assert_is_the_tone(decoded)
    assert not decoded.truncated


@pytest.mark.parametrize("container", ["WAV", "RF64", "W64", "AIFF", "CAF", "AU", "FLAC", "OGG", "MP3"])
def test_of_a_file_that_breaks_off_the_rest_is_kept(tmp_path, container):
    path = tmp_path / "cut"
    soundfile.write(path, tone(44_100, seconds=20), 44_100, format=container)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    decoded = decode(str(path), max_seconds=60)
    assert decoded.truncated
    assert 5 < decoded.duration_s < 15
    assert_is_the_tone(decoded, decoded.duration_s)


def write_spans(path: Path, codec: str, container: str, spans: list[tuple[float, float]], *, picture: bool = False):
    """The tone from one second to another, and nothing between; with `picture`, beside two seconds of video."""
    rate = 44_100
    with av.open(str(path), "w", format=container) as out:
        sound = out.add_stream(codec, rate=rate, layout="mono")
        if picture:
            write_picture(out, out.add_stream("mpeg4", rate=10))
        size = sound.frame_size or 1024
        for begin_s, end_s in spans:
            for at in range(round(begin_s * rate), round(end_s * rate) - size + 1, size):
                packed = av.AudioFrame.from_ndarray(tone(rate, size / rate).reshape(1, -1), format="flt", layout="mono")
                packed.sample_rate = rate
                for frame in av.AudioResampler(format=sound.format).resample(packed):
                    frame.pts, frame.time_base = at, Fraction(1, rate)
                    out.mux(sound.encode(frame))
        out.mux(sound.encode(None))


def sounding(decoded: Decoded) -> list[tuple[float, float]]:
    """When there is sound, in seconds, to the twentieth."""
    loud = np.abs(decoded.samples[: decoded.samples.size // 800 * 800]).reshape(-1, 800).max(axis=1) > LEVEL / 2
    edges = np.flatnonzero(np.diff(np.concatenate([[False], loud, [False]]).astype(int))) / 20
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


TIMED = [("pcm_s16le", "matroska"), ("aac", "mp4"), ("aac", "mpegts"), ("mp2", "mpeg"), ("aac", "flv")]


@pytest.mark.parametrize(("codec", "container"), TIMED)
def test_what_a_recorder_left_out_is_silence(tmp_path, codec, container):
    path = tmp_path / "paused"
    write_spans(path, codec, container, [(0, 1), (4, 5.5)])
    decoded = decode(str(path), max_seconds=60)
    assert decoded.duration_s == pytest.approx(5.5, abs=0.2)
    (begin, paused), (resumed, end) = sounding(decoded)
    assert (begin, paused, resumed, end) == pytest.approx((0, 1, 4, 5.5), abs=0.2)
    with pytest.raises(UndecodableAudio, match=causes.TOO_LONG):
        decode(str(path), max_seconds=4.5)


@pytest.mark.parametrize("container", ["matroska", "mp4", "mpegts"])
def test_sound_that_begins_after_the_picture_is_where_the_picture_has_it(tmp_path, container):
    path = tmp_path / "late"
    write_spans(path, "aac", container, [(1.5, 3)], picture=True)
    decoded = decode(str(path), max_seconds=60)
    assert decoded.duration_s == pytest.approx(3, abs=0.15)
    assert sounding(decoded) == [pytest.approx((1.5, 3), abs=0.15)]


@pytest.mark.parametrize(("codec", "container"), TIMED)
def test_a_file_begins_where_its_sound_begins_if_there_is_nothing_else(tmp_path, codec, container):
    path = tmp_path / "cut out of a longer one"
    write_spans(path, codec, container, [(7, 8.5)])
    assert decode(str(path), max_seconds=60).duration_s == pytest.approx(1.5, abs=0.15)


def write_stamped(path: Path, stamps_s: list[float], container: str = "matroska") -> None:
    """The tone in packets of 0.1 s, each with its stamp."""
    rate = 16_000
    with av.open(str(path), "w", format=container) as out:
        sound = out.add_stream("pcm_s16le", rate=rate, layout="mono")
        for stamp_s in stamps_s:
            packed = av.AudioFrame.from_ndarray(tone(rate, 0.1).reshape(1, -1), format="flt", layout="mono")
            packed.sample_rate = rate
            for frame in av.AudioResampler(format="s16").resample(packed):
                frame.pts, frame.time_base = round(stamp_s * rate), Fraction(1, rate)
                out.mux(sound.encode(frame))


def test_a_recorder_that_stalls_and_makes_up_for_it_adds_no_more_than_one_stall(tmp_path):
    stamps_s = [n / 10 for n in range(100)]
    for stalled in range(10, 100, 20):
        for n in range(stalled, stalled + 3):  # three packets arrive together
            stamps_s[n] = (stalled + 2.9) / 10 + (n - stalled) / 1000
    write_stamped(tmp_path / "stalls", stamps_s)
    assert 10 <= decode(str(tmp_path / "stalls"), max_seconds=60).duration_s <= 10.5


def test_a_clock_that_drifts_cuts_no_word(tmp_path):
    write_stamped(tmp_path / "drift", [n / 10 * 1.02 for n in range(200)])
    assert decode(str(tmp_path / "drift"), max_seconds=60).duration_s == pytest.approx(20, abs=0.01)


class Stamped(NamedTuple):
    """A frame as the clock sees it."""

    pts: int
    time_base: Fraction = Fraction(1, 10)
    samples: int = 1600
    sample_rate: int = 16_000


@pytest.mark.parametrize(
    ("stamps", "silence_s"),
    [
        ([0, 1, 2, 40, 41], 3.7),
        ([0, 1, 500, 3, 4], 0),  # one wrong stamp, far ahead
        ([50, 51, 2, 53, 54], 0),  # and one behind
        ([50, 51, 2, 3, 4, 35], 3.0),  # joined, and then a pause
        ([0, 1, 20_000, 20_001], 0),
    ],
)
def test_a_jump_of_the_clock_is_no_silence_and_a_pause_is(stamps, silence_s):
    gaps, recorded_s, silent_s = _GapFinder(None, 40.0), 0.0, 0.0
    for pts in stamps:
        missing_s = gaps.silence_before_s(Stamped(pts), recorded_s)
        recorded_s, silent_s = recorded_s + missing_s + 0.1, silent_s + missing_s
    assert silent_s == pytest.approx(silence_s)


def test_where_another_clock_begins_nothing_was_left_out(tmp_path):
    path = tmp_path / "joined.ts"
    write_spans(path, "aac", "mpegts", [(0, 1), (20, 21), (23, 24)])
    decoded = decode(str(path), max_seconds=60)
    assert decoded.duration_s == pytest.approx(5, abs=0.2)  # 19 s are a jump of the clock, 2 s are a pause
    for part in [(0, 1), (20, 21)]:
        write_spans(tmp_path / f"{part[0]}", "aac", "mpegts", [part])
    path.write_bytes((tmp_path / "20").read_bytes() + (tmp_path / "0").read_bytes())  # back to its start
    assert decode(str(path), max_seconds=60).duration_s == pytest.approx(2, abs=0.2)


@pytest.mark.parametrize(
    ("codec", "container", "options"),
    [
        ("aac", "mp4", {"movflags": "faststart"}),
        ("pcm_s16le", "mov", {"movflags": "faststart"}),
        ("libopus", "webm", {}),
        ("aac", "adts", {}),
        ("wavpack", "wv", {}),
    ],
)
def test_of_a_container_that_breaks_off_the_rest_is_kept(tmp_path, codec, container, options):
    whole, path = tmp_path / "whole", tmp_path / "cut"
    write_av(whole, codec, container)
    with av.open(str(whole)) as source, av.open(str(path), "w", format=container, options=options) as out:
        copy = out.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = copy
                out.mux(packet)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    decoded = decode(str(path), max_seconds=60)
    assert decoded.truncated
    assert 0.5 < decoded.duration_s < 1.9


def test_damage_in_the_middle_costs_only_the_damage(tmp_path):
    path = tmp_path / "damaged.flac"
    soundfile.write(path, tone(seconds=20), 16_000, format="FLAC")
    flac = bytearray(path.read_bytes())
    flac[len(flac) // 2 : len(flac) // 2 + 200] = bytes(200)
    path.write_bytes(flac)
    decoded = decode(str(path), max_seconds=60)
    assert decoded.truncated
    assert decoded.duration_s > 18


def test_the_file_may_be_deleted_once_it_is_open(tmp_path, monkeypatch):
    path = tmp_path / "gone.wav"
    soundfile.write(path, tone(), 16_000)
    opened = os.open

    def opened_and_deleted(name, flags, *mode):
        fd = opened(name, flags, *mode)
        path.unlink(missing_ok=True)
        return fd

    monkeypatch.setattr(os, "open", opened_and_deleted)
    assert_is_the_tone(decode(str(path), max_seconds=60))


@pytest.mark.parametrize("container", ["WAV", "FLAC", "MP3"])
def test_longer_than_the_limit_is_refused(tmp_path, container):
    path = tmp_path / "upload-name"
    soundfile.write(path, tone(seconds=3), 16_000, format=container)
    assert refused(path, max_seconds=2.9) == causes.TOO_LONG
    decode(str(path), max_seconds=3.2)


def test_what_is_no_file_is_refused_at_once(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "fifo.wav")
    soundfile.write(tmp_path / "real.wav", tone(), 16_000)
    (tmp_path / "link.wav").symlink_to(tmp_path / "real.wav")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # a socket's name may have 108 bytes
        server.bind("socket.wav")
        for path in (tmp_path / "fifo.wav", tmp_path / "link.wav", tmp_path / "socket.wav", tmp_path, "/dev/zero"):
            assert refused(path) == causes.NOT_A_FILE


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
def test_a_rate_that_no_recorder_has_is_refused(tmp_path, rate):
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
def test_samples_that_are_no_numbers_are_refused(tmp_path, bad, codec, rate):
    path = tmp_path / "nan.wav"
    sound = tone(rate, channels=2)
    sound[-1, 1] = bad
    soundfile.write(path, sound, rate, subtype=codec)
    assert refused(path) == causes.NOT_FINITE


def test_samples_that_are_no_numbers_are_refused_even_where_none_is_left_of_them(tmp_path):
    path = tmp_path / "nan.wav"
    soundfile.write(path, np.full(3, np.nan), 768_000, subtype="FLOAT")
    assert refused(path) == causes.NOT_FINITE


def test_samples_that_add_up_to_infinity_are_refused(tmp_path):
    path = tmp_path / "huge.wav"
    soundfile.write(path, np.sign(tone(48_000)) * np.finfo(np.float32).max, 48_000, subtype="FLOAT")
    assert refused(path) == causes.NOT_FINITE


def test_no_mutation_of_a_file_gets_past_the_refusals(tmp_path):
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
