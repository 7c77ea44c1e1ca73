"""About how far the captions are behind: from the sound's level and the letters alone."""

from __future__ import annotations

import numpy as np
import pytest

from devtools.live.speech_clock import SpeechClock


def sound(*parts: tuple[float, float]) -> np.ndarray:
    """(seconds, level) one after the other."""
    noise = np.random.default_rng(0)
    return np.concatenate([(level * noise.standard_normal(round(s * 16_000))).astype(np.float32) for s, level in parts])


def hearing(*parts: tuple[float, float]) -> SpeechClock:
    clock, samples = SpeechClock(), sound(*parts)
    for piece in np.array_split(samples, 7):
        clock.hear(piece)
    return clock


def test_nobody_is_behind_in_silence() -> None:
    assert SpeechClock().behind_s(3.0) == 0
    assert hearing((3.0, 1e-6)).behind_s(3.0) == 0


def test_letters_that_are_not_shown_count_from_when_they_were_spoken() -> None:
    clock = hearing((1.0, 0.0), (2.0, 0.1))
    assert clock.behind_s(3.0) == pytest.approx(2.0, abs=0.05)  # since speech began
    clock.shown("fourteen letters"[:15])  # 14 of them are spoken in a second
    assert clock.behind_s(3.0) == pytest.approx(1.0, abs=0.05)


def test_the_speakers_own_rate_is_learnt_when_the_captions_have_caught_up() -> None:
    clock = hearing((2.0, 0.1), (1.0, 0.0), (2.0, 0.1))
    clock = hearing((2.0, 0.1))
    clock.shown("a" * 10)
    clock.caught_up()
    assert clock.behind_s(5.0) == 0
    clock.hear(sound((1.0, 0.0), (2.0, 0.1)))
    clock.shown("a" * 5)  # of five letters a second
    assert clock.behind_s(5.0) == pytest.approx(1.0, abs=0.05)


def test_speech_resumes_after_a_pause_of_half_a_second() -> None:
    assert hearing((1.0, 0.1), (0.3, 0.0), (1.0, 0.1)).resumed_s == pytest.approx(0, abs=0.03)
    assert hearing((1.0, 0.1), (0.8, 0.0), (1.0, 0.1)).resumed_s == pytest.approx(1.8, abs=0.03)
