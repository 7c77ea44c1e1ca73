"""Live streams and a file on one scheduler and its model thread: each text as alone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_speech import Stream, WordModel, name, numbers, sound_of

from backend.audio.vad import Speech
from backend.audio.waveform import Chunk
from backend.options.load_options import LoadOptions, TranscribeOptions
from backend.pipeline.recognition import RecognitionPolicy
from backend.pipeline.streaming import StreamedRecognition
from backend.process.request_stats import RequestStats
from backend.serving.model_instance import Lean
from backend.serving.protocols import Recognition, Utterance
from backend.serving.scheduler import Scheduler

pytestmark = pytest.mark.usefixtures("level_detector")

Talk = list[tuple[int, int]]  # words, pauses behind them
talks = st.lists(st.tuples(st.integers(1, 25), st.integers(2, 5)), min_size=1, max_size=3)


class SharedModel(WordModel):
    """Answers in a few steps, of which some fail where several utterances run together."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.rng = random.Random(seed)
        for number in range(100):  # of all words now: two threads spell them
            self._id(name(number))
            self._id(name(number).capitalize())

    def session(self) -> SharedSession:
        return SharedSession(self)


class SharedSession:
    def __init__(self, model: SharedModel) -> None:
        self._model = model
        self._left: list[tuple[Utterance, int]] = []  # steps

    def __len__(self) -> int:
        return len(self._left)

    def add(self, utterances: Sequence[Utterance]) -> None:
        self._left += [(utterance, self._model.rng.randrange(1, 9)) for utterance in utterances]

    def step(self) -> list[tuple[Utterance, Recognition]]:
        if len(self._left) > 1 and self._model.rng.random() < 0.1:
            raise RuntimeError("boom")
        ended = [utterance for utterance, left in self._left if left == 1]
        self._left = [(utterance, left - 1) for utterance, left in self._left if left > 1]
        return [(utterance, self._model.answer(utterance)) for utterance in ended]

    def drop(self, utterance: Utterance) -> None:
        self._left = [each for each in self._left if each[0] is not utterance]


def text_of(talk: Talk) -> str:
    """A sentence for each utterance."""
    plan, sentences = [*numbers(talk), -1], [[]]  # type: ignore[var-annotated]
    for number in plan:
        if number >= 0:
            sentences[-1].append(name(number))
        elif sentences[-1]:
            sentences.append([])
    return " ".join(" ".join(words).capitalize() + "." for words in sentences if words)


async def live_text(scheduler: Scheduler, model: SharedModel, talk: Talk, rng: random.Random) -> str:
    """Of a stream whose messages come as fast as others let them."""
    with_model: Any = SimpleNamespace(
        model=model,
        submit=scheduler.submit,
        utterance_began=scheduler.utterance_began,
        utterance_ended=scheduler.utterance_ended,
    )
    async with Stream(with_model) as stream:
        sound = sound_of(numbers(talk))
        for at in range(0, sound.size, 4800):
            stream.live.feed(sound[at : at + 4800])
            for _ in range(rng.randrange(6)):
                await asyncio.sleep(0)
        transcript = await stream.end()
        assert transcript is not None, stream.error
        assert stream.text == transcript.text
        return transcript.text


async def file_text(scheduler: Scheduler, model: SharedModel, talk: Talk) -> str:
    """Of a recording with a passage for each utterance."""
    sounds = [sound_of(number for number in numbers([*talk[:at], part])[-sum(part) :]) for at, part in enumerate(talk)]
    whole = np.concatenate(sounds)
    begins = np.cumsum([0, *(sound.size for sound in sounds)])
    chunks = [Chunk(int(begin), sound) for begin, sound in zip(begins[:-1], sounds, strict=True)]
    speech = Speech(((0, whole.size),), np.ones(-(-whole.size // 512), np.float32))
    lean, options, stats = Lean(LoadOptions("m", batch_max_size=3), model), TranscribeOptions("en"), RequestStats()
    policy = RecognitionPolicy(scheduler, lean, options, speech, stats)
    return "".join(
        [delta async for delta in StreamedRecognition(policy, lean, options, speech, stats, chunks).deltas()]
    )


@settings(max_examples=15)
@given(st.lists(talks, min_size=2, max_size=3), talks, st.integers(0, 2**32))
async def test_streams_and_a_file_have_each_the_text_that_they_have_alone(
    lives: list[Talk], file: Talk, seed: int
) -> None:
    """L13, also where a step fails that several of them shared: then each is run again alone."""
    model, scheduler, rng = SharedModel(seed), Scheduler(), random.Random(seed)
    try:
        *texts, streamed = await asyncio.gather(
            *(live_text(scheduler, model, talk, rng) for talk in lives), file_text(scheduler, model, file)
        )
    finally:
        scheduler.stop()
    assert texts == [text_of(talk) for talk in lives]
    assert streamed == text_of(file)
    assert not scheduler._started
