"""The sounds in which nobody speaks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from devtools.eval.nonspeech import KINDS, sound, usual_length_s

SILENT = "digital silence"


def test_there_are_twenty_kinds_of_4_to_8_s() -> None:
    assert len(KINDS) == 20
    assert {usual_length_s(kind) for kind in KINDS} == {4.0, 5.0, 6.0, 7.0, 8.0}


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_is_the_same_each_time_and_its_peak_is_its_level(kind: str) -> None:
    for level in (1.0, 0.1, 0.01):
        samples = sound(kind, seconds=4.0, level=level)
        assert samples.dtype == np.float32
        assert samples.shape == (64_000,)
        assert np.isfinite(samples).all()
        assert np.abs(samples).max() == pytest.approx(0.0 if kind == SILENT else level, rel=1e-6)
        assert np.array_equal(samples, sound(kind, seconds=4.0, level=level))


def test_only_the_level_changes_with_the_level() -> None:
    for kind in KINDS:
        loud, quiet = (sound(kind, seconds=4.0, level=level) for level in (1.0, 0.01))
        assert np.allclose(quiet, 0.01 * loud, atol=1e-8)


def test_no_two_kinds_are_alike() -> None:
    sounds = {kind: sound(kind, seconds=4.0, level=1.0).astype(np.float64) for kind in KINDS if kind != SILENT}
    for one, other in itertools.combinations(sounds, 2):
        product = abs(np.dot(sounds[one], sounds[other]))
        assert product < 0.5 * np.linalg.norm(sounds[one]) * np.linalg.norm(sounds[other]), (one, other)


@pytest.mark.parametrize(("seconds", "level"), [(0.0, 1.0), (1.0, 0.0), (1.0, 1.5), (1.0, float("nan"))])
def test_no_length_and_no_level_are_refused(seconds: float, level: float) -> None:
    with pytest.raises(ValueError, match="a length above 0 s and a level"):
        sound("rain", seconds=seconds, level=level)


def test_the_shortest_sound_is_one_sample() -> None:
    for kind in KINDS:
        assert sound(kind, seconds=1 / 16_000, level=1.0).shape == (1,)
