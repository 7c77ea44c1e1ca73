"""Pauses put into recordings, and the ends of utterances that were said at them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from devtools.eval.hypotheses import Word
from devtools.eval.live.pauses import PAUSE_S, Pause, ended, with_pauses
from devtools.eval.manifest import DEMO_SET, Entry, read
from devtools.live.paced_client import Event

TEXT = "Turn on the light. Stop."
WORDS = (Word("Turn", 0.1, 0.3), Word("on", 0.4, 0.6), Word("the", 0.7, 0.9), Word("light", 1.0, 1.4),
         Word("Stop", 2.0, 2.4))  # fmt: skip
ENTRY = Entry("a", Path("a.wav"), TEXT, "en", WORDS)


def test_a_sentence_has_a_pause_in_its_middle_and_one_at_its_end() -> None:
    sound, pauses = with_pauses(ENTRY, np.ones(40_000, np.float32))
    assert [pause.ends_sentence for pause in pauses] == [False, True, True]  # one word is not interrupted
    inside, end, last = pauses
    assert (inside.start_s, inside.end_s) == pytest.approx((0.6, 0.7 + PAUSE_S))
    assert (end.start_s, end.end_s) == pytest.approx((1.4 + PAUSE_S, 2.0 + 2 * PAUSE_S))
    assert last.start_s == pytest.approx(2.4 + 2 * PAUSE_S)
    quiet = np.abs(sound) < 0.01
    assert quiet.sum() == round((2 * PAUSE_S + 1.5) * 16_000)
    assert sound.dtype == np.float32
    for pause in pauses:
        middle = round((pause.start_s + pause.end_s) / 2 * 16_000)
        assert quiet[middle]


def test_all_sound_of_the_recordings_is_kept() -> None:
    entry = next(entry for entry in read(DEMO_SET) if entry.id == "demo")
    samples = entry.samples()
    sound, pauses = with_pauses(entry, samples)
    assert sum(pause.ends_sentence for pause in pauses) == 4
    assert sound.size - samples.size == round((len(pauses) - 1) * PAUSE_S * 16_000) + 24_000


def test_an_end_counts_for_the_pause_in_which_it_was_said() -> None:
    pauses = [Pause(1.0, 2.0, False), Pause(4.0, 5.0, True), Pause(8.0, 9.0, True)]
    events = [Event(1.5, "a"), Event(4.7, "b", True), Event(9.5, "", True), Event(10.5, "", True)]
    assert ended(pauses, events) == [False, True, True]
