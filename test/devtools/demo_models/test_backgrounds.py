"""Music and babble under speech, and the figures that the evaluation makes of them."""

from __future__ import annotations

import numpy as np
import pytest

from backend.audio.vad import Speech
from devtools.demo_models import evaluate
from devtools.demo_models.backgrounds import BACKGROUNDS, background, mixed
from devtools.demo_models.speech import SAMPLE_RATE, ClipBank, Recording, Spoken
from devtools.demo_models.vocabulary import WORDS


@pytest.fixture
def bank() -> ClipBank:
    rng = np.random.default_rng(0)
    return ClipBank(
        {
            language: {"one": {word: [rng.uniform(-0.1, 0.1, 5_000).astype(np.float32)] for word in words}}
            for language, words in WORDS.items()
        }
    )


@pytest.fixture
def recording() -> Recording:
    """4 s of a tone that stands for words at 1 s and at 2 s, half a second each."""
    t = np.arange(4 * SAMPLE_RATE) / SAMPLE_RATE
    spoken = (t >= 1) & (t < 1.5) | (t >= 2) & (t < 2.5)
    samples = np.asarray(0.2 * np.sin(2 * np.pi * 300 * t) * spoken, np.float32)
    return Recording(samples, "en", [[Spoken("one", 1.0, 1.5), Spoken("two", 2.0, 2.5)]])


@pytest.mark.parametrize("kind", BACKGROUNDS)
def test_a_background_has_unit_power_throughout_and_a_seed_makes_the_same(bank: ClipBank, kind: str) -> None:
    first, again = (background(kind, np.random.default_rng(3), bank, 10 * SAMPLE_RATE) for _ in range(2))
    assert (first == again).all()
    assert first.size == 10 * SAMPLE_RATE
    assert first.std() == pytest.approx(1, rel=1e-3)
    assert first.reshape(10, SAMPLE_RATE).std(axis=1).min() > 0.3


def test_both_backgrounds_differ(bank: ClipBank) -> None:
    one, other = (background(kind, np.random.default_rng(3), bank, SAMPLE_RATE) for kind in BACKGROUNDS)
    assert abs(np.mean(one * other)) < 0.2


@pytest.mark.parametrize("snr_db", [10, 5, 0])
def test_the_ratio_is_that_of_the_words_power_to_the_background(recording: Recording, snr_db: float) -> None:
    under = np.random.default_rng(1).standard_normal(recording.samples.size).astype(np.float32)
    noisy = mixed(recording, under, snr_db)
    assert (noisy.sentences, noisy.samples.size) == (recording.sentences, recording.samples.size)
    assert np.abs(noisy.samples).max() <= 0.9001
    silence, word = noisy.samples[:SAMPLE_RATE], noisy.samples[SAMPLE_RATE : SAMPLE_RATE * 3 // 2]
    found = 10 * np.log10((word.var() - silence.var()) / silence.var())
    assert found == pytest.approx(snr_db, abs=0.5)


@pytest.mark.parametrize(
    ("spans_s", "covered", "elsewhere"),
    [
        ([(1.0, 1.5), (2.0, 2.5)], 100, 0),
        ([(1.1, 1.5), (2.2, 2.5)], 50, 0),  # 80 % and 60 % of a word
        ([(0.0, 4.0)], 100, 100),
        ([], 0, 0),
        ([(0.0, 0.95)], 0, 100 * 0.7 / 1.9),  # up to 0.3 s before a word
    ],
)
def test_cover_counts_words_and_the_speech_between_them(
    recording: Recording,
    monkeypatch: pytest.MonkeyPatch,
    spans_s: list[tuple[float, float]],
    covered: float,
    elsewhere: float,
) -> None:
    spans = tuple((round(begin * SAMPLE_RATE), round(end * SAMPLE_RATE)) for begin, end in spans_s)
    monkeypatch.setattr(evaluate, "detected", lambda _: Speech(spans, np.ones(125, np.float32)))
    assert evaluate.cover([recording]) == pytest.approx({"covered words %": covered, "speech elsewhere %": elsewhere})


def test_the_evaluation_has_a_goal_for_covered_words_and_none_for_word_errors_over_a_background() -> None:
    assert evaluate.goal_of("music, 5 dB", "covered words %") == evaluate.COVERED_GOAL
    assert evaluate.goal_of("music, 5 dB", "word errors %") is None
    assert evaluate.goal_of("trained voices", "word errors %") == 1
