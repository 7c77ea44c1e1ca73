"""Sound is placed where the file's timestamps put it: gaps, late starts, drifting and jumping clocks."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import pytest
from tones import sounding, tone, write_picture

from backend.audio.decoding import causes
from backend.audio.decoding.decode import decode
from backend.audio.decoding.placement import GapFinder
from backend.errors import UndecodableAudio


def write_spans(path: Path, codec: str, container: str, spans: list[tuple[float, float]], *, picture: bool = False):
    """The tone from one second to another, and nothing between; with `picture`, beside two seconds of video."""
    rate = 44_100
    with av.open(str(path), "w", format=container) as out:
        sound: Any = out.add_stream(codec, rate=rate, layout="mono")
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
def test_sound_that_starts_after_the_picture_keeps_its_offset(tmp_path, container):
    path = tmp_path / "late"
    write_spans(path, "aac", container, [(1.5, 3)], picture=True)
    decoded = decode(str(path), max_seconds=60)
    assert decoded.duration_s == pytest.approx(3, abs=0.15)
    assert sounding(decoded) == [pytest.approx((1.5, 3), abs=0.15)]


def test_an_empty_edit_says_when_the_sound_of_a_file_starts(tmp_path):
    """FFmpeg writes one into MP4 where the first packet is late; a participant who joined late has one."""
    path = tmp_path / "late.m4a"
    write_spans(path, "aac", "mp4", [(7, 8.5)])
    decoded = decode(str(path), max_seconds=60)
    assert decoded.duration_s == pytest.approx(8.5, abs=0.15)
    assert sounding(decoded) == [pytest.approx((7, 8.5), abs=0.15)]


@pytest.mark.parametrize(("codec", "container"), [timed for timed in TIMED if timed[1] != "mp4"])
def test_a_file_with_sound_only_starts_with_its_sound(tmp_path, codec, container):
    path = tmp_path / "cut out of a longer one"
    write_spans(path, codec, container, [(7, 8.5)])
    assert decode(str(path), max_seconds=60).duration_s == pytest.approx(1.5, abs=0.15)


def write_stamped(path: Path, stamps_s: list[float], container: str = "matroska") -> None:
    """The tone in packets of 0.1 s, each with its timestamp."""
    rate = 16_000
    with av.open(str(path), "w", format=container) as out:
        sound = out.add_stream("pcm_s16le", rate=rate, layout="mono")
        for stamp_s in stamps_s:
            packed = av.AudioFrame.from_ndarray(tone(rate, 0.1).reshape(1, -1), format="flt", layout="mono")
            packed.sample_rate = rate
            for frame in av.AudioResampler(format="s16").resample(packed):
                frame.pts, frame.time_base = round(stamp_s * rate), Fraction(1, rate)
                out.mux(sound.encode(frame))


def test_a_recorder_that_stalls_and_catches_up_adds_at_most_one_stall(tmp_path):
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
    """The part of a frame that GapFinder uses."""

    pts: int
    time_base: Fraction = Fraction(1, 10)
    samples: int = 1600
    sample_rate: int = 16_000


@pytest.mark.parametrize(
    ("stamps", "silence_s"),
    [
        ([0, 1, 2, 40, 41], 3.7),
        ([0, 1, 500, 3, 4], 0),  # one wrong timestamp, far ahead
        ([50, 51, 2, 53, 54], 0),  # one wrong timestamp, behind
        ([50, 51, 2, 3, 4, 35], 3.0),  # joined files, then a pause
        ([0, 1, 20_000, 20_001], 0),
    ],
)
def test_a_jump_of_the_clock_is_no_silence_and_a_pause_is(stamps, silence_s):
    gaps, recorded_s, silent_s = GapFinder(None, 40.0), 0.0, 0.0
    for pts in stamps:
        frame: Any = Stamped(pts)
        missing_s = gaps.silence_before_s(frame, recorded_s)
        recorded_s, silent_s = recorded_s + missing_s + 0.1, silent_s + missing_s
    assert silent_s == pytest.approx(silence_s)


def test_a_change_of_clock_adds_no_silence(tmp_path):
    path = tmp_path / "joined.ts"
    write_spans(path, "aac", "mpegts", [(0, 1), (20, 21), (23, 24)])
    decoded = decode(str(path), max_seconds=60)
    assert decoded.duration_s == pytest.approx(5, abs=0.2)  # 19 s are a jump of the clock, 2 s are a pause
    for part in [(0, 1), (20, 21)]:
        write_spans(tmp_path / f"{part[0]}", "aac", "mpegts", [part])
    path.write_bytes((tmp_path / "20").read_bytes() + (tmp_path / "0").read_bytes())  # the clock jumps back
    assert decode(str(path), max_seconds=60).duration_s == pytest.approx(2, abs=0.2)
