"""Endpointing finds, frame by frame, the speech that a recording's detector finds at its end."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from backend.audio.silero import FRAME
from backend.audio.vad import SpeechRules, speech_of
from backend.audio.waveform import SAMPLE_RATE
from backend.live.endpointing import Endpointing

rules = st.builds(
    SpeechRules, st.sampled_from([0.2, 0.5, 0.9]), st.sampled_from([0.0, 0.1, 0.3]), st.sampled_from([0.0, 0.1, 0.25])
)
runs = st.lists(st.tuples(st.sampled_from([0.0, 0.3, 0.4, 0.6, 0.8, 1.0]), st.integers(1, 12)), max_size=14)


@given(rules, runs, st.integers(0, 5))
def test_the_speech_is_that_of_the_spans(rules: SpeechRules, runs: list[tuple[float, int]], first: int) -> None:
    likelihood = [value for value, length in runs for _ in range(length)]
    heard = Endpointing(rules, first)
    for number, value in enumerate(likelihood):
        heard.hear(value)
        spans = speech_of(np.array(likelihood[: number + 1], np.float32), rules, 10**9).spans
        assert heard.frames == first + number + 1
        assert (heard.speech_begin is not None) == bool(spans)
        if spans:
            assert heard.speech_begin == heard.onset == first + spans[0][0] // FRAME
            assert heard.speech_end == first + spans[-1][1] // FRAME
            assert abs(heard.speech_s - sum(end - begin for begin, end in spans) / SAMPLE_RATE) < 1e-6
        else:
            assert first <= heard.onset <= heard.frames
