"""Voice activity detection on recordings with known word times, at any level and any length."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backend.audio import vad as detector
from backend.audio.vad import Speech, SpeechRules, all_speech
from backend.audio.waveform import SAMPLE_RATE, Samples
from devtools.eval.nonspeech import KINDS, sound

RULES = SpeechRules(threshold=0.5, min_speech_s=0.1, min_silence_s=0.1)


def detect(samples: Samples, rules: SpeechRules) -> Speech:
    return asyncio.run(detector.detect(samples, rules))


def recording(path: Path) -> tuple[Samples, list[tuple[str, float, float]]]:
    samples, rate = soundfile.read(path, dtype="float32")
    assert rate == SAMPLE_RATE
    return samples, json.loads(path.with_suffix(".json").read_text())["words"]


def covered(speech: Speech, start_s: float, end_s: float) -> float:
    """The share of the time that is detected as speech."""
    begin, end = round(start_s * SAMPLE_RATE), round(end_s * SAMPLE_RATE)
    return speech.seconds(begin, end) * SAMPLE_RATE / (end - begin)


@pytest.mark.parametrize("level", [1.0, 0.01, 0.001])
@pytest.mark.parametrize("name", ["demo.wav", "chinese.wav", "left_out.wav"])
def test_every_word_is_speech_at_any_level(recordings: Path, name: str, level: float) -> None:
    samples, words = recording(recordings / name)
    speech = detect(samples * np.float32(level), RULES)
    assert min(covered(speech, start, end) for _, start, end in words) > 0.5
    pauses = [(a[2], b[1]) for a, b in pairwise(words) if b[1] - a[2] > 0.6]
    assert max((covered(speech, start + 0.15, end - 0.1) for start, end in pauses), default=0) < 0.2


def test_a_whisper_after_a_shout_is_speech(recordings: Path) -> None:
    samples, _ = recording(recordings / "demo.wav")
    both = np.concatenate([samples, np.zeros(7 * SAMPLE_RATE, np.float32), samples * np.float32(0.004)])
    speech = detect(both, RULES)
    loud = speech.seconds(0, samples.size)
    soft = speech.seconds(samples.size + 7 * SAMPLE_RATE, both.size)
    assert soft == pytest.approx(loud, rel=0.1)


def tones(size: int, *partials: tuple[float, float]) -> Samples:
    """The sum of sines, given as (Hz, amplitude), with an RMS of 1."""
    seconds = np.arange(size) / SAMPLE_RATE
    wave = sum(amplitude * np.sin(2 * np.pi * hz * seconds + hz) for hz, amplitude in partials)
    return np.asarray(wave / np.sqrt(np.square(wave).mean()), np.float32)


def rumble(size: int) -> Samples:
    """Noise of 5 to about 40 Hz, with an RMS of 1."""
    spectrum, hz = np.fft.rfft(np.random.default_rng(3).standard_normal(size)), np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    wave = np.fft.irfft(spectrum * (hz > 5) / (1 + (hz / 40) ** 4), size)
    return np.asarray(wave / np.sqrt(np.square(wave).mean()), np.float32)


@pytest.mark.parametrize(
    ("kind", "db"), [("hum", 10), ("hum", 15), ("60 Hz hum", 15), ("rumble", 20)], ids=lambda value: str(value)
)
@pytest.mark.parametrize("name", ["demo.wav", "chinese.wav", "left_out.wav"])
def test_words_are_speech_under_hum_and_rumble_that_are_louder(
    recordings: Path, name: str, kind: str, db: float
) -> None:
    samples, words = recording(recordings / name)
    speech_rms = np.sqrt(np.square(samples[np.abs(samples) > 0.02]).mean())
    noises = {
        "hum": tones(samples.size, (50, 1), (100, 0.3), (150, 0.1)),
        "60 Hz hum": tones(samples.size, (60, 1), (120, 0.2), (180, 0.05)),
        "rumble": rumble(samples.size),
    }
    noisy = np.float32(0.1) * (samples + noises[kind] * np.float32(speech_rms * 10 ** (db / 20)))
    speech = detect(noisy, RULES)
    missed = [word for word, start, end in words if covered(speech, start, end) < 0.7]
    assert len(missed) <= len(words) // 20, missed


@pytest.mark.parametrize("db", [-20, -30, -40])
@pytest.mark.parametrize("name", ["demo.wav", "chinese.wav"])
def test_a_far_speaker_between_two_near_ones_is_speech(recordings: Path, name: str, db: float) -> None:
    samples, words = recording(recordings / name)
    far = samples * np.float32(10 ** (db / 20))
    speech = detect(np.concatenate([samples, far, samples]), RULES)
    offset_s = samples.size / SAMPLE_RATE
    assert min(covered(speech, offset_s + start, offset_s + end) for _, start, end in words) >= 0.7


@pytest.mark.parametrize("gap_s", [0.3, 1.0])
def test_a_beep_does_not_hide_the_quiet_words_after_it(recordings: Path, gap_s: float) -> None:
    samples, words = recording(recordings / "demo.wav")
    beep = 0.5 * tones(SAMPLE_RATE // 2, (1_000, 1))
    quiet = np.concatenate([np.zeros(round(gap_s * SAMPLE_RATE), np.float32), samples * np.float32(0.01)])
    speech = detect(np.concatenate([beep, quiet]), RULES)
    offset_s = 0.5 + gap_s
    assert min(covered(speech, offset_s + start, offset_s + end) for _, start, end in words) >= 0.7


def test_a_recording_of_minutes_is_judged_in_pieces_that_agree_with_the_whole(recordings: Path) -> None:
    samples, words = recording(recordings / "long.flac")
    speech = detect(samples, RULES)
    assert min(covered(speech, start, end) for _, start, end in words) > 0.5
    begin = 55 * SAMPLE_RATE // 512 * 512  # ten seconds around the seam of two pieces, judged alone
    alone = detect(samples[begin : begin + 10 * SAMPLE_RATE], RULES)
    seam = speech.likelihood[begin // 512 : begin // 512 + alone.likelihood.size]
    same = (seam > 0.5) == (alone.likelihood > 0.5)
    assert np.mean(same[32:]) > 0.95  # the detector's state reaches back further than the warm-up


def clicks(samples: Samples, *, every_s: float, seconds: float) -> Samples:
    """The samples with bursts at nine tenths of full scale."""
    loud = samples.copy()
    length = round(seconds * SAMPLE_RATE)
    for at in range(0, loud.size - length, round(every_s * SAMPLE_RATE)):
        loud[at : at + length] = 0.9 * (-1.0) ** np.arange(length)
    return loud


def test_neither_clicks_nor_an_offset_hide_quiet_speech(recordings: Path) -> None:
    samples, words = recording(recordings / "demo.wav")
    quiet = samples * np.float32(0.03)
    for damaged in (
        clicks(quiet, every_s=3, seconds=0.01),
        clicks(quiet, every_s=8, seconds=0.03),
        quiet + np.float32(0.02),
        samples * np.float32(0.1) + np.float32(0.1),
    ):
        speech = detect(damaged, RULES)
        assert sum(covered(speech, start, end) > 0.3 for _, start, end in words) == len(words)


class Watched(np.ndarray):
    """Samples that count how often a part is taken, and can block it."""

    taken = 0
    gate = threading.Event()

    def __getitem__(self, part):
        Watched.taken += 1
        assert Watched.gate.wait(20)
        return np.asarray(self)[part]


@pytest.fixture
def hour(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    """An hour of silence, which the filter leaves as it is."""
    monkeypatch.setattr(detector, "high_passed", lambda samples: samples)
    Watched.taken = 0
    Watched.gate.clear()
    yield np.zeros(3600 * SAMPLE_RATE, np.float32).view(Watched)
    Watched.gate.set()


async def test_after_a_cancellation_no_further_piece_is_judged(hour: Watched) -> None:
    Watched.gate.set()
    judging = asyncio.create_task(detector.detect(hour, RULES))
    while Watched.taken < 2:  # the levels, and the first of 15 turns
        await asyncio.sleep(0.001)
    judging.cancel()
    await asyncio.wait([judging])
    for _ in range(2):  # they queue behind the turns that have been started
        await detector.detect(np.zeros(90 * SAMPLE_RATE, np.float32), RULES)
    assert Watched.taken <= 1 + min(8, os.cpu_count() or 1)


async def test_a_command_does_not_wait_for_the_hours_of_others(hour: Watched) -> None:
    hours = [asyncio.create_task(detector.detect(hour, RULES)) for _ in range(40)]
    await asyncio.sleep(0)
    await asyncio.wait_for(detector.detect(np.zeros(3 * SAMPLE_RATE, np.float32), RULES), 10)
    for task in hours:
        assert task.cancel()
    await asyncio.wait(hours)


async def test_concurrent_recordings_are_judged_as_if_alone(recordings: Path) -> None:
    long, _ = recording(recordings / "long.flac")
    short, _ = recording(recordings / "demo.wav")
    sounds = [long, short, long[SAMPLE_RATE:], long * np.float32(0.01)]
    alone = [await detector.detect(samples, RULES) for samples in sounds]
    for one, other in zip(alone, await asyncio.gather(*(detector.detect(s, RULES) for s in sounds)), strict=True):
        assert one.spans == other.spans
        np.testing.assert_array_equal(one.likelihood, other.likelihood)


@pytest.mark.parametrize("kind", KINDS)
def test_no_kind_of_sound_without_a_voice_is_speech(kind: str) -> None:
    for level in (1.0, 0.1, 0.01, 0.001):
        assert detect(sound(kind, seconds=5, level=level), RULES).spans == ()


def test_noise_is_no_speech(recordings: Path) -> None:
    samples, _ = recording(recordings / "noise.wav")
    for level in (1.0, 0.1, 0.01, 0.0):
        assert detect(samples * np.float32(level), RULES).spans == ()


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513])
def test_a_frame_or_less_is_no_speech(size: int) -> None:
    speech = detect(np.full(size, 0.3, np.float32), RULES)
    assert (speech.spans, speech.likelihood.size) == ((), -(-size // 512))


def test_threshold_and_durations_take_effect(recordings: Path) -> None:
    samples, _ = recording(recordings / "demo.wav")
    spans = detect(samples, RULES).spans
    assert len(detect(samples, replace(RULES, min_silence_s=0.5)).spans) < len(spans)
    assert len(detect(samples, replace(RULES, min_speech_s=1.0)).spans) < len(spans)
    strict = detect(samples, replace(RULES, threshold=0.95))
    assert strict.seconds(0, samples.size) < detect(samples, replace(RULES, threshold=0.2)).seconds(0, samples.size)


def test_without_a_detector_everything_counts_as_speech() -> None:
    speech = all_speech(np.zeros(1000, np.float32))
    assert (speech.spans, speech.measured) == (((0, 1000),), False)
    assert all_speech(np.zeros(0, np.float32)).spans == ()


@settings(max_examples=200)
@given(st.lists(st.integers(0, 5000), max_size=20, unique=True), st.integers(0, 5000), st.integers(0, 5000))
@example([0, 2], 1, 0)
def test_the_speech_within_a_range_is_its_overlap_with_the_spans(marks: list[int], begin: int, length: int) -> None:
    marks.sort()
    spans = tuple(zip(marks[::2], marks[1::2], strict=False))
    speech = Speech(spans, np.full(10, 0.75, np.float32))
    mask = np.zeros(12_000, bool)
    for start, end in spans:
        mask[start:end] = True
    found = speech.within(begin, begin + length)
    assert sum(end - start for start, end in found) == mask[begin : begin + length].sum()
    assert speech.seconds(begin, begin + length) == pytest.approx(mask[begin : begin + length].sum() / SAMPLE_RATE)
    assert all(begin <= start < end <= begin + length for start, end in found)
    assert speech.mean_likelihood(begin, begin + length) == (0.75 if found and found[0][0] < 5120 else 0.0)
