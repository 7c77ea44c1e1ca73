"""Composed recordings, from clips that stand for espeak-ng's."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from devtools.demo_models.recordings import DIGITS, PANGRAM
from devtools.demo_models.speech import SAMPLE_RATE, ClipBank, compose, compose_silence, voices
from devtools.demo_models.vocabulary import WORDS


@pytest.fixture
def bank() -> ClipBank:
    rng = np.random.default_rng(0)

    def clip() -> np.ndarray:
        return rng.uniform(-0.1, 0.1, int(rng.integers(3_000, 9_000))).astype(np.float32)

    return ClipBank({language: {"one": {word: [clip()] for word in words}} for language, words in WORDS.items()})


@pytest.mark.parametrize("seed", range(4))
def test_words_are_in_order_and_inside_the_recording_and_a_seed_makes_the_same(bank: ClipBank, seed: int) -> None:
    first, again = (compose(np.random.default_rng(seed), bank, seconds=12.0, augment=seed % 2 == 0) for _ in range(2))
    assert (first.samples == again.samples).all()
    assert first.sentences == again.sentences
    assert first.spoken[0].start_s >= 0
    assert first.spoken[-1].end_s <= first.samples.size / SAMPLE_RATE
    assert all(a.start_s < a.end_s < b.start_s for a, b in itertools.pairwise(first.spoken))
    assert np.abs(first.samples).max() <= 1


def test_a_script_is_spoken_as_it_is_and_written_with_capitals_and_stops(bank: ClipBank) -> None:
    english = compose(np.random.default_rng(1), ClipBank({"en": bank.takes["en"]}), seconds=60, script=PANGRAM)
    assert english.text.startswith("The quick brown fox jumps over the lazy dog. Good morning. ")
    assert [unit.word for unit in english.units] == english.text.replace(".", "").split()
    assert [unit[1:] for unit in english.units] == [spoken[1:] for spoken in english.spoken]
    chinese = compose(np.random.default_rng(1), ClipBank({"zh": bank.takes["zh"]}), seconds=60, script=DIGITS)
    assert chinese.text == "一二三四五。六七八九零。"
    assert "".join(word for word, _, _ in chinese.truth()["words"]) == "一二三四五六七八九零"


@pytest.mark.parametrize("seed", range(12))
def test_where_nobody_speaks_there_is_no_word(seed: int) -> None:
    silent = compose_silence(np.random.default_rng(seed), seconds=2.0)
    assert silent.samples.size == 2 * SAMPLE_RATE
    assert np.isfinite(silent.samples).all()
    assert silent.truth() == {"text": "", "language": "", "words": []}


@pytest.mark.parametrize("language", WORDS)
def test_no_voice_is_both_trained_on_and_held_out(language: str) -> None:
    trained, held_out = (voices(language, held_out=held_out) for held_out in (False, True))
    assert held_out
    assert not set(trained) & set(held_out)
