"""What a live stream makes of its sound, however that is cut into messages: the same pieces, and each sample in one.

Properties of random talks in random messages, empty ones and such of one sample included, in virtual time.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import cycle
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from simulated_speech import RATE, LevelDetector, SimulatedScheduler, Stream, WordModel, name, numbers, sound_of
from virtual_time import run

from backend.audio.silero import FRAME
from backend.live import captioning, final_deadline
from backend.live.utterance_pieces import UtterancePieces
from backend.live.utterance_recognition import UtteranceRecognition
from backend.options.load_options import LoadOptions
from backend.pipeline.transcript_builder import Transcript
from backend.transcript.matching import fold

# The longest window, half a second that is heard at once, and half a second before speech; and while nobody speaks.
MAX_KEPT, MAX_KEPT_IN_SILENCE = 16 * RATE, 3 * RATE // 2
pauses = st.one_of(st.integers(0, 5), st.just(60))
talks = st.lists(st.tuples(st.integers(0, 60), pauses), min_size=1, max_size=4)  # words, pauses behind them
utterances = st.lists(st.tuples(st.integers(1, 25), st.integers(2, 5)), min_size=1, max_size=4)  # none fills a window
messages = st.lists(st.sampled_from([0, 1, 2, 200, 511, 512, 513, 4800, 16_000, 100_000]), min_size=1, max_size=9)


@dataclass
class Heard:
    """What one stream has made of its sound. Places are samples of the stream, from and to."""

    pieces: list[tuple[int, int]] = field(default_factory=list)
    sounds: list[np.ndarray] = field(default_factory=list)
    steps: list[tuple[int, int]] = field(default_factory=list)  # places of what was decoded while it grew
    stream: Any = None


@contextmanager
def recorded() -> Iterator[Heard]:
    heard, add, settle = Heard(), UtterancePieces.add, UtteranceRecognition.settle

    def added(self: UtterancePieces, piece: Any, parts: Any) -> None:
        heard.pieces.append(piece.place)
        heard.sounds.append(piece.chunk.samples.copy())
        add(self, piece, parts)

    async def settled(self: UtteranceRecognition, piece: Any, growing: Any, *, is_whole: bool) -> str:
        heard.steps.append(piece.place)
        return await settle(self, piece, growing, is_whole=is_whole)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(captioning, "CausalDetector", LevelDetector)
        patch.setattr(final_deadline, "LIVE_FINAL_S", 1000.0)  # how much there is time for depends on the messages
        patch.setattr(UtterancePieces, "add", added)
        patch.setattr(UtteranceRecognition, "settle", settled)
        yield heard


def heard(
    plan: Sequence[int], sizes: Sequence[int], model: WordModel, takes_s: float = 0.1, **load: Any
) -> tuple[Heard, SimulatedScheduler]:
    """The talk, sent in messages of these sizes, again and again, each when its sound has been spoken."""
    sound, scheduler = sound_of(plan), SimulatedScheduler(model, lambda: takes_s)

    async def live(found: Heard) -> None:
        async with Stream(scheduler, LoadOptions("m", **load)) as stream:
            found.stream, at, again = stream, 0, cycle([*sizes, 4800])
            while at < sound.size:
                part = sound[at : at + next(again)]
                await asyncio.sleep(part.size / RATE)
                stream.live.feed(part)
                at += part.size
                check_kept(stream)
            assert await stream.end() is not None, stream.error

    with recorded() as found:
        run(live(found))
    return found, scheduler


def check_kept(stream: Stream) -> None:
    """L6: the sound that is not recognised for good, beside that which waits, is bounded."""
    window = stream.live._captioning._window  # type: ignore[union-attr]
    assert window._samples.size <= (MAX_KEPT if stream.live.is_speaking else MAX_KEPT_IN_SILENCE)
    assert len(window._likelihood) <= window._samples.size / FRAME + 1


def folded(text: str) -> list[str]:
    return [fold(word) for word in text.split()]


def wrong_at_random(seed: int, words_from_end: int) -> Callable[[list[int]], list[int]]:
    """Of the last words of a window some are heard wrong: always the same ones of the same words."""

    def misheard(words: list[int]) -> list[int]:
        rng = random.Random(f"{seed} {words}")
        first = max(len(words) - words_from_end, 0)
        return [98 if at >= first and rng.random() < 0.5 else word for at, word in enumerate(words)]

    return misheard


@settings(max_examples=30)
@given(talks, messages, messages, st.floats(0, 3), st.integers(0, 3), st.integers(0, 2**32), st.sampled_from([0.25, 1]))
@example([(26, 1), (40, 0)], [4800], [1], 0.1, 0, 0, 1)  # words behind the cut have been sent
def test_every_sample_is_in_one_piece_or_silence_whatever_the_messages_the_model_and_its_pace(
    talk: list[tuple[int, int]],
    sizes: list[int],
    others: list[int],
    takes_s: float,
    wrong: int,
    seed: int,
    step_s: float,
) -> None:
    """L3 to L7: where pieces begin and end depends on the sound alone, so their words do."""
    plan = numbers(talk)
    sound = sound_of(plan)
    exact, scheduler = heard(plan, sizes, WordModel(), takes_s, live_step_s=step_s)
    other, _ = heard(plan, others, WordModel(wrong_at_random(seed, 60 if wrong else 0)), 3 - takes_s)
    assert exact.pieces == other.pieces  # L3
    assert folded(exact.stream.transcripts[0].text) == [name(number) for number in plan if number >= 0]
    silent = np.ones(sound.size, bool)
    at = 0
    for (begin, end), samples in zip(exact.pieces, exact.sounds, strict=True):
        assert at <= begin <= end <= sound.size  # L4: in order, and none twice
        np.testing.assert_array_equal(samples, sound[begin:end])
        silent[begin:end] = False
        at = end
    assert not sound[silent].any()
    for found in (exact, other):
        parts = found.stream.live._captioning._pieces._parts
        assert all(part.chunk.samples.strides == (0,) for part in parts)  # L6: their sound takes no memory
        assert all(count <= 2 for count in Counter(with_speech(sound, found.steps)).values())  # L7
    assert scheduler.most_at_once <= 1


def with_speech(sound: np.ndarray, places: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The places as far as there is speech in them: a step without new speech may only be the one for its pause."""
    for begin, end in places:
        loud = np.flatnonzero(sound[begin:end])
        assert loud.size  # nobody speaks, and nothing is decoded
        yield begin, begin + int(loud[-1])


def without_ids(found: Heard) -> Transcript:
    """The transcript without the ids of its tokens, which the model has numbered as it came upon them."""
    (transcript,) = found.stream.transcripts
    return replace(transcript, tokens=())


@settings(max_examples=30)
@given(utterances, messages, st.floats(0, 3), st.integers(0, 2), st.integers(0, 2**32))
def test_the_text_of_utterances_is_the_same_to_the_byte_in_any_messages(
    talk: list[tuple[int, int]], sizes: list[int], takes_s: float, wrong: int, seed: int
) -> None:
    """L3 with a model that hears the last words of windows wrong, as many as are held back."""
    plan = numbers(talk)
    once, _ = heard(plan, sizes, WordModel(wrong_at_random(seed, wrong)), takes_s, live_hold_words=wrong)
    again, _ = heard(plan, [4800], WordModel(wrong_at_random(seed, wrong)), takes_s, live_hold_words=wrong)
    assert without_ids(once) == without_ids(again)
    assert once.stream.text == once.stream.transcripts[0].text
    assert once.stream.stats.rewrites == 0


@settings(max_examples=25)
@given(talks, messages, st.floats(0, 3), st.sampled_from(["sentence", "pause"]))
def test_each_utterance_is_ended_once_behind_its_last_word(
    talk: list[tuple[int, int]], sizes: list[int], takes_s: float, eou: Any
) -> None:
    """L18: at every pause of 0.6 s behind speech, and nowhere else."""
    plan = numbers(talk)
    found, _ = heard(plan, sizes, WordModel(), takes_s, live_eou=eou)
    said, ended = 0, []
    for event in found.stream.events:
        said += len(event.delta.split())
        ended += [said] if event.eou else []
    assert ended == [
        sum(number >= 0 for number in plan[:at])
        for at, number in enumerate(plan)
        if number >= 0 and plan[at + 1 : at + 3] == [-1, -1]
        for at in [at + 1]
    ]
