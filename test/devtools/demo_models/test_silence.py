"""Silence that is put around and between the words of a recording, for the training and for the evaluation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from devtools.demo_models import margins
from devtools.demo_models.evaluate import goal_of
from devtools.demo_models.silence import floor, gated, in_silence, inserted
from devtools.demo_models.speech import SAMPLE_RATE, Recording, Spoken
from devtools.eval.hypotheses import Hypothesis


@pytest.fixture
def recording() -> Recording:
    """4 s of hiss; two words in a sentence at 1 s and 1.5 s and one in a second at 3 s, 0.3 s each."""
    samples = np.random.default_rng(0).uniform(0.001, 0.1, 4 * SAMPLE_RATE).astype(np.float32)
    return Recording(samples, "en", [[Spoken("one", 1.0, 1.3), Spoken("two", 1.5, 1.8)], [Spoken("three", 3.0, 3.3)]])


def sounds(recording: Recording) -> list[np.ndarray]:
    return [
        recording.samples[round(word.start_s * SAMPLE_RATE) : round(word.end_s * SAMPLE_RATE)]
        for word in recording.spoken
    ]


@pytest.mark.parametrize(("kind", "most"), [(0, 0), (1, 2**-15), (2, 0.01)])
def test_a_floor_is_as_quiet_as_its_kind_says(kind: int, most: float) -> None:
    quiet = floor(np.random.default_rng(1), kind, 10_000)
    assert (quiet.size, quiet.dtype) == (10_000, np.float32)
    assert np.abs(quiet).max() <= most
    assert bool(quiet.any()) == (kind > 0)


@pytest.mark.parametrize("seed", range(40))
def test_words_keep_their_sound_and_get_their_new_times(recording: Recording, seed: int) -> None:
    still = in_silence(np.random.default_rng(seed), recording, 9.0)
    assert recording.samples.size <= still.samples.size <= 9 * SAMPLE_RATE
    assert [word.word for word in still.spoken] == ["one", "two", "three"]
    assert still.text == recording.text
    for before, after in zip(sounds(recording), sounds(still), strict=True):
        assert (before == after).all()
    assert all(a.end_s < b.start_s for a, b in itertools.pairwise(still.spoken))


def test_there_is_no_silence_in_a_recording_that_is_as_long_as_it_may_be(recording: Recording) -> None:
    assert all(
        in_silence(np.random.default_rng(seed), recording, 2.0).samples.size == recording.samples.size
        for seed in range(20)
    )


def test_the_training_gets_seconds_of_zeros_on_both_sides_between_sentences_and_between_words(
    recording: Recording,
) -> None:
    found = [in_silence(np.random.default_rng(seed), recording, 16.5) for seed in range(60)]
    before = [still.spoken[0].start_s - 1.0 for still in found]
    behind = [still.samples.size / SAMPLE_RATE - still.spoken[-1].end_s - 0.7 for still in found]
    between = [still.spoken[2].start_s - still.spoken[1].end_s - 1.2 for still in found]
    for added_s in (before, behind, between):
        assert min(added_s) == pytest.approx(0, abs=1e-4)
        assert max(added_s) > margins.MARGINS_S[2]
    assert any(not still.samples[round(still.spoken[0].end_s * SAMPLE_RATE) + 600 :][:2000].any() for still in found)


def test_a_gate_leaves_the_words_and_what_just_follows_them(recording: Recording) -> None:
    quiet = gated(np.random.default_rng(0), recording, 0)
    heard = np.flatnonzero(quiet.samples) / SAMPLE_RATE
    assert heard.min() == 1.0
    assert heard.max() == pytest.approx(3.33, abs=1e-3)
    assert not ((heard > 1.331) & (heard < 1.499)).any()
    assert quiet.sentences == recording.sentences


def test_a_recording_without_words_can_be_silenced_too() -> None:
    hiss = Recording(np.full(SAMPLE_RATE, 0.1, np.float32), None, [])
    for seed in range(20):
        still = in_silence(np.random.default_rng(seed), hiss, 4.0)
        assert still.language is None
        assert not still.spoken
        assert SAMPLE_RATE <= still.samples.size <= 4 * SAMPLE_RATE


@pytest.mark.parametrize(
    ("side", "first_s", "length_s"), [("before", 3.0, 6.0), ("behind", 1.0, 6.0), ("both sides", 3.0, 8.0)]
)
def test_zeros_of_the_evaluation_stand_on_their_side(
    recording: Recording, side: str, first_s: float, length_s: float
) -> None:
    padded = margins.in_zeros(recording, 2.0, side)
    assert (padded.spoken[0].start_s, padded.samples.size) == (first_s, length_s * SAMPLE_RATE)
    assert np.count_nonzero(padded.samples) == np.count_nonzero(recording.samples)
    assert (padded.samples[: 2 * SAMPLE_RATE] == 0).all() == (side != "behind")


def test_words_more_and_words_fewer_do_not_make_up_for_each_other(recording: Recording) -> None:
    spoken = [recording, recording]
    plain = [Hypothesis("One two. Three.", "en"), Hypothesis("One two. Three.", "en")]
    padded = [Hypothesis("Six one two. Three stop.", "en"), Hypothesis("One two.", "en")]
    assert margins.figures(spoken, plain, padded) == {
        "words more": 2,
        "words fewer": 1,
        "word errors %": 50,
    }
    chinese = [Recording(recording.samples, "zh", [[Spoken("一", 1.0, 1.3), Spoken("二", 1.5, 1.8)]])]
    found = margins.figures(chinese, [Hypothesis("一二。", "zh")], [Hypothesis("一二六。", "zh")])
    assert found == {"words more": 1, "words fewer": 0, "word errors %": 50}


def test_the_evaluation_allows_no_word_more_in_any_cell_with_the_detector() -> None:
    assert goal_of("20 s both sides", "words more") == 0
    assert goal_of("20 s both sides, vad:off", "words more") == 5
    assert goal_of("20 s both sides", "words fewer") is None


def test_recordings_without_silence_are_what_inserted_is_given(recording: Recording) -> None:
    same = inserted(recording, [])
    assert (same.samples == recording.samples).all()
    assert same.sentences == recording.sentences
