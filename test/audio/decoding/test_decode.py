"""Decoding of every container that people send, made here by soundfile and PyAV, whole and truncated."""

from __future__ import annotations

import os
import struct

import av
import numpy as np
import pytest
import soundfile
from tones import assert_is_the_tone, tone, write_av

from backend.audio.decoding.decode import decode


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
def test_the_content_decides_the_format_and_not_the_name(tmp_path, name):
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
def test_a_wav_from_a_pipe_states_no_size(tmp_path, stated):
    path = tmp_path / "piped.wav"
    soundfile.write(path, tone(), 16_000)
    wav = bytearray(path.read_bytes())
    wav[4:8] = wav[40:44] = struct.pack("<I", stated)
    path.write_bytes(wav)
    decoded = decode(str(path), max_seconds=60)
    assert_is_the_tone(decoded)
    assert not decoded.truncated


@pytest.mark.parametrize("container", ["WAV", "RF64", "W64", "AIFF", "CAF", "AU", "FLAC", "OGG", "MP3"])
def test_what_could_be_decoded_of_a_truncated_file_is_kept(tmp_path, container):
    path = tmp_path / "cut"
    soundfile.write(path, tone(44_100, seconds=20), 44_100, format=container)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    decoded = decode(str(path), max_seconds=60)
    assert decoded.truncated
    assert 5 < decoded.duration_s < 15
    assert_is_the_tone(decoded, decoded.duration_s)


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
def test_what_could_be_decoded_of_a_truncated_container_is_kept(tmp_path, codec, container, options):
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
