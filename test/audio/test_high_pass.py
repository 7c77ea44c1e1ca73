from __future__ import annotations

import numpy as np
import pytest

from backend.audio.high_pass import high_passed


def level_db(hz: float) -> float:
    """How much of a tone is left, in dB, away from its ends."""
    tone = np.sin(2 * np.pi * hz * np.arange(32_000) / 16_000).astype(np.float32)
    left = high_passed(tone)[8_000:24_000]
    return float(20 * np.log10(np.sqrt(np.square(left).mean() * 2) + 1e-9))


@pytest.mark.parametrize(("hz", "most"), [(10, -70), (30, -70), (50, -35), (60, -25)])
def test_hum_and_rumble_are_taken_away(hz: float, most: float) -> None:
    assert level_db(hz) < most


@pytest.mark.parametrize("hz", [180, 300, 1_000, 7_900])
def test_speech_is_left_as_it_is(hz: float) -> None:
    assert level_db(hz) == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("size", [0, 1, 512, 7_167, 7_168, 7_169, 40_000])
def test_nothing_is_moved_and_an_offset_is_gone(size: int) -> None:
    """A click stays at its place, whatever block it is in; the filter's sum is zero."""
    samples = np.zeros(size, np.float32)
    samples[size // 2 : size // 2 + 1] = 1
    found = high_passed(samples)
    assert found.shape == samples.shape
    assert found.dtype == np.float32
    assert not size or int(np.abs(found).argmax()) == size // 2
    level = high_passed(np.full(size + 40_000, 0.3, np.float32))[10_000:-10_000]
    assert np.abs(level).max() < 1e-4


def test_a_block_more_behind_changes_nothing_before_it() -> None:
    samples = np.random.default_rng(1).standard_normal(30_000).astype(np.float32)
    longer = high_passed(np.concatenate([samples, np.zeros(9_000, np.float32)]))
    np.testing.assert_allclose(longer[:20_000], high_passed(samples)[:20_000], atol=1e-5)
