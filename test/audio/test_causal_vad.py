"""The detector of sound that is still arriving, against that of recordings."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.audio import silero
from backend.audio.causal_vad import CausalDetector, NoDetector
from backend.audio.high_pass import LAG, StreamedHighPass, high_passed
from backend.audio.vad import Speech, SpeechRules, detect, speech_of
from backend.audio.waveform import SAMPLE_RATE, Samples
from devtools.eval.nonspeech import KINDS, sound

RULES = SpeechRules(threshold=0.5, min_speech_s=0.1, min_silence_s=0.1)


def likelihoods(samples: Samples, sizes: list[int]) -> Samples:
    detector, at = CausalDetector(), 0
    found: list[Samples] = []
    while at < samples.size:
        size = sizes[len(found) % len(sizes)]
        found.append(detector.likelihoods(samples[at : at + size]))
        at += size
    return np.concatenate([*found, detector.last_likelihoods()])


def heard(samples: Samples) -> Speech:
    return speech_of(likelihoods(samples, [4800]), RULES, samples.size)


def test_the_filter_is_that_of_recordings_one_frame_late() -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, 20 * LAG).astype(np.float32)
    streamed = StreamedHighPass()
    found = np.concatenate([streamed.passed(part) for part in np.split(samples, [LAG, 4 * LAG, 15 * LAG])])
    np.testing.assert_allclose(found[LAG:], high_passed(samples)[: found.size - LAG], atol=1e-5)


def test_the_network_goes_on_where_it_was() -> None:
    frames = np.random.default_rng(0).uniform(-1, 1, (2, 90, 512)).astype(np.float32)
    state = silero.State.empty(2)
    parts = [silero.likelihoods(part, state) for part in np.split(frames, [1, 1, 70], axis=1)]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), silero.likelihoods(frames), atol=1e-6)


@settings(max_examples=15)
@given(st.lists(st.integers(1, 3000), min_size=1, max_size=6), st.integers(0, 20_000))
def test_likelihoods_do_not_depend_on_how_the_sound_is_cut(sizes: list[int], size: int) -> None:
    samples = np.random.default_rng(1).uniform(-0.3, 0.3, size).astype(np.float32)
    found = likelihoods(samples, sizes)
    assert found.size == -(-size // 512)
    np.testing.assert_allclose(found, likelihoods(samples, [10**6]), atol=1e-4)


@pytest.mark.parametrize("level", [1.0, 0.01])
@pytest.mark.parametrize("name", ["demo.wav", "chinese.wav", "left_out.wav"])
def test_it_finds_the_words_that_the_detector_of_recordings_finds(recordings: Path, name: str, level: float) -> None:
    samples, _ = soundfile.read(recordings / name, dtype="float32")
    samples = samples * np.float32(level)
    words = json.loads((recordings / name).with_suffix(".json").read_text())["words"]
    speech, whole = heard(samples), asyncio.run(detect(samples, RULES))
    for _, start, end in words:
        begin, stop = round(start * SAMPLE_RATE), round(end * SAMPLE_RATE)
        assert speech.seconds(begin, stop) > 0.5 * (end - start)
    assert abs(speech.spans[0][0] - whole.spans[0][0]) <= 0.13 * SAMPLE_RATE
    assert abs(speech.spans[-1][1] - whole.spans[-1][1]) <= 0.2 * SAMPLE_RATE


@pytest.mark.parametrize("kind", KINDS)
def test_sound_without_speech_is_no_speech(kind: str) -> None:
    assert not heard(sound(kind, seconds=10, level=0.5).astype(np.float32)).spans


def test_a_far_voice_behind_a_near_one_is_speech(recordings: Path) -> None:
    samples, _ = soundfile.read(recordings / "demo.wav", dtype="float32")
    words = json.loads((recordings / "demo.json").read_text())["words"]
    speech = heard(np.concatenate([samples, samples * np.float32(0.1)]))
    missed = [
        word
        for word, start, end in words
        if speech.seconds(samples.size + round(start * SAMPLE_RATE), samples.size + round(end * SAMPLE_RATE))
        < 0.5 * (end - start)
    ]
    assert not missed


def test_without_a_detector_every_frame_is_speech() -> None:
    detector = NoDetector()
    counts = [detector.likelihoods(np.zeros(size, np.float32)).size for size in (500, 12, 1024, 1)]
    assert counts == [0, 1, 2, 0]
    assert detector.last_likelihoods().tolist() == [1.0]
    assert detector.last_likelihoods().size == 0
