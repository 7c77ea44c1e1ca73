"""About how far the captions are behind: from when somebody spoke, and the letters alone."""

from __future__ import annotations

import numpy as np
import pytest

from devtools.bench.live.sounds import speech
from devtools.live.speech_clock import SpeechClock


def sound(*parts: tuple[float, float]) -> np.ndarray:
    """(seconds, level) one after the other."""
    noise = np.random.default_rng(0)
    return np.concatenate([(level * noise.standard_normal(round(s * 16_000))).astype(np.float32) for s, level in parts])


class Loud:
    """Takes loud frames for speech."""

    def __init__(self) -> None:
        self._rest = np.zeros(0, np.float32)

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        sound = np.concatenate([self._rest, samples])
        whole = sound.size // 512 * 512
        self._rest = sound[whole:]
        return (np.abs(sound[:whole]).reshape(-1, 512).max(axis=1, initial=0) > 0.01).astype(np.float32)


def hearing(*parts: tuple[float, float]) -> SpeechClock:
    clock, samples = SpeechClock(Loud()), sound(*parts)
    for piece in np.array_split(samples, 7):
        clock.hear(piece)
    return clock


def test_nothing_is_known_before_the_first_utterance_has_ended() -> None:
    clock = SpeechClock()
    clock.utterance_ended(1.0)
    assert clock.behind_s(3.0) is None
    assert hearing((3.0, 1e-6)).behind_s(3.0) is None
    assert clock.began_s(3.0) == 0


def spoken_once() -> SpeechClock:
    """Two seconds of speech with ten letters, all of them shown."""
    clock = hearing((2.0, 0.1), (1.0, 0.0))
    clock.shown("a " * 10)
    clock.utterance_ended(3.0)
    return clock


def test_letters_are_spoken_as_evenly_as_in_the_utterances_before() -> None:
    clock = spoken_once()
    assert clock.behind_s(3.0) == 0
    clock.hear(sound((2.0, 0.1)))  # up to second 5
    assert clock.behind_s(5.0) == pytest.approx(3.0, abs=0.1)  # the last letter was spoken at second 2
    clock.shown("a" * 5)  # of five letters a second
    assert clock.behind_s(5.0) == pytest.approx(1.0, abs=0.1)
    clock.shown("a" * 5)
    assert clock.behind_s(5.0) == 0


def test_an_end_that_comes_when_speech_has_gone_on_is_that_of_the_pause_before() -> None:
    clock = hearing((2.0, 0.1), (1.0, 0.0), (0.3, 0.1))
    clock.shown("a" * 10)
    clock.utterance_ended(3.3)
    clock.hear(sound((0.7, 0.1)))  # up to second 4
    clock.shown("a" * 5)
    assert clock.behind_s(4.0) == 0


def test_speech_begins_after_a_pause_of_half_a_second() -> None:
    assert hearing((1.0, 0.1), (0.3, 0.0), (1.0, 0.1)).began_s(2.0) == pytest.approx(0, abs=0.06)
    clock = hearing((1.0, 0.1), (0.8, 0.0), (1.0, 0.1), (0.8, 0.0), (0.5, 0.1))
    assert clock.began_s(0.0) == 0
    assert clock.began_s(2.0) == pytest.approx(1.8, abs=0.06)  # shown when the second one had begun
    assert clock.began_s(3.4) == pytest.approx(3.6, abs=0.06)
    assert clock.resumed_after(3.4)
    assert not clock.resumed_after(3.7)


def test_pauses_are_heard_in_background_noise() -> None:
    said, clock = speech(30.0, 0.0), SpeechClock()
    noise = np.random.default_rng(0).standard_normal(said.samples.size)
    clock.hear(np.clip(said.samples + 0.01 * noise, -1, 1).astype(np.float32))
    first, second, *_ = said.utterances
    after_s = said.words[first[1]].end_s + 1.0
    assert clock.began_s(after_s) == pytest.approx(said.words[second[0]].start_s, abs=0.35)
