"""The invariants of a live stream, with words that are known and a model that hears them, in virtual time.

Properties of random talks: pauses, message sizes, durations of decodes, words that a window's end gets wrong, faults.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from simulated_speech import RATE, SimulatedScheduler, Stream, WordModel, name, numbers, sound_of, words_in
from virtual_time import run

from backend.errors import EngineFailure, FallingBehind
from backend.live.utterance_recognition import SETTLED_EARLY
from backend.options.load_options import LoadOptions, TranscribeOptions
from backend.process.request_stats import QUIET
from backend.transcript.matching import fold

pytestmark = pytest.mark.usefixtures("level_detector")

PAUSE = [-1, -1, -1]  # 0.96 s
talks = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 5)), min_size=1, max_size=4)  # words, pauses behind them
sizes = st.sampled_from([500, 1000, 4800, 16_000, 100_000])


def spoken(plan: list[int]) -> list[str]:
    return [name(number) for number in plan if number >= 0]


def folded(text: str) -> list[str]:
    return [fold(word) for word in text.split()]


def last_misheard(rng: random.Random) -> Callable[[list[int]], list[int]]:
    """The last word of a window is often another one."""
    return lambda words: [*words[:-1], 98] if words and rng.random() < 0.5 else words


@settings(max_examples=25)
@given(talks, sizes, st.floats(0, 1.5), st.integers(0, 3), st.booleans(), st.sampled_from(["sentence", "pause", "off"]))
def test_the_deltas_are_the_final_text_and_every_word_is_said_once(
    talk: list[tuple[int, int]], size: int, takes_s: float, hold: int, words: bool, eou: Any
) -> None:
    """L1, L2, L4 to L7, L12, L14 and L18."""
    plan = numbers(talk)
    scheduler = SimulatedScheduler(WordModel(), lambda: takes_s)
    options = TranscribeOptions(times=words, words=words)

    async def live() -> Stream:
        async with Stream(scheduler, LoadOptions("m", live_hold_words=hold, live_eou=eou), options) as stream:
            await stream.send(sound_of(plan), size)
            assert await stream.end() is not None, stream.error
            return stream

    stream = run(live())
    (transcript,) = stream.transcripts
    assert stream.text == transcript.text  # L1; a delta is only ever appended
    assert folded(transcript.text) == spoken(plan)  # L4, L5
    assert all(utterance.samples.size <= 15 * RATE + 512 for _, utterance, _ in scheduler.utterances)  # L6
    assert all(words_in(utterance.samples) for _, utterance, _ in scheduler.utterances)  # L7
    assert scheduler.most_at_once <= 1
    assert (scheduler.at_once, scheduler.speaking) == (0, 0)  # L14
    told = [word for event in stream.events for word in event.words]
    if words:  # L12
        assert [word.text for word in told] == transcript.text.split()
        times = [round(time, 6) for word in told for time in (word.start_s, word.end_s)]
        assert times == sorted(times)
        assert not times or (times[0] >= 0 and times[-1] <= transcript.duration_s)
    else:
        assert not told
    said = ""
    for event in stream.events:  # L18
        said += event.delta
        assert not event.eou or (eou != "off" and said.endswith("."))
    assert sum(event.eou for event in stream.events) <= scheduler_utterances(plan)
    assert transcript.eou == (eou != "off" and bool(transcript.text))


def scheduler_utterances(plan: list[int]) -> int:
    """Runs of words: at most so many pauses end an utterance."""
    return sum(1 for at, number in enumerate(plan) if number >= 0 and (at == 0 or plan[at - 1] < 0))


@settings(max_examples=15)
@given(talks, sizes, st.floats(0, 1.5), st.integers(0, 2**32))
@example([(13, 1), (33, 0), (44, 2)], 16_000, 1.4375, 1)  # the clip before a cut ends in a word that was sent right
def test_what_a_windows_end_gets_wrong_never_breaks_the_text(
    talk: list[tuple[int, int]], size: int, takes_s: float, seed: int
) -> None:
    """L1 and L5: the last word of a window is wrong half of the time, two are held back, so none leaves wrong."""
    plan, rng = numbers(talk), random.Random(seed)
    scheduler = SimulatedScheduler(WordModel(last_misheard(rng)), lambda: takes_s)

    async def live() -> Stream:
        async with Stream(scheduler) as stream:
            await stream.send(sound_of(plan), size)
            await stream.end()
            return stream

    stream = run(live())
    (transcript,) = stream.transcripts
    assert stream.text == transcript.text
    assert stream.stats.rewrites == 0
    assert len(folded(transcript.text)) == len(spoken(plan))


@settings(max_examples=15)
@given(talks, st.integers(0, 2**32))
def test_a_model_that_contradicts_itself_cannot_take_text_back(talk: list[tuple[int, int]], seed: int) -> None:
    """L1 and L2 where each decode hears other words at random."""
    plan, rng = numbers(talk), random.Random(seed)

    def mishears(words: list[int]) -> list[int]:
        return [rng.choice([word, word, word, 50, 51]) for word in words if rng.random() < 0.95]

    scheduler = SimulatedScheduler(WordModel(mishears))

    async def live() -> Stream:
        async with Stream(scheduler, LoadOptions("m", live_hold_words=0)) as stream:
            await stream.send(sound_of(plan))
            await stream.end()
            return stream

    stream = run(live())
    assert stream.text == stream.transcripts[0].text


@settings(max_examples=25)
@given(talks, st.integers(0, 2000), st.sampled_from(["finish", "config", "close", "fault", "quiet"]), st.floats(0, 1))
def test_a_stream_may_end_at_any_point(talk: list[tuple[int, int]], at: int, how: str, takes_s: float) -> None:
    """L10, L11 and L14: half-close, a second config, a client that leaves, a fault, a client that sends nothing."""
    plan = numbers(talk)
    sound = sound_of(plan)
    cut = sound.size * at // 2000
    scheduler = SimulatedScheduler(WordModel(), lambda: takes_s)

    async def live() -> Stream:
        async with Stream(scheduler) as stream:
            await stream.send(sound[:cut])
            if how == "config":
                await stream.live.start_over(TranscribeOptions(language="en"))
                stream.events.clear()  # what was told before
                await stream.send(sound)
            if how == "fault":
                scheduler.faults += [EngineFailure()] * 9
                await stream.send(sound[cut:])
            if how == "quiet":
                await asyncio.sleep(100)
            elif how != "close":
                await stream.end()
            return stream

    stream = run(live())
    assert (scheduler.at_once, scheduler.speaking) == (0, 0)
    if how == "close":
        assert not stream.transcripts
    elif stream.error is not None:
        assert how == "fault"
        assert isinstance(stream.error, EngineFailure)
        assert not stream.transcripts
    else:
        (transcript,) = stream.transcripts
        assert stream.text == transcript.text
        assert (stream.stats.finish == QUIET) == (how == "quiet")
    if how == "config":
        (transcript,) = stream.transcripts
        assert folded(transcript.text) == spoken(plan)
        assert transcript.duration_s == sound.size / RATE


async def talk_of(seconds: int, scheduler: SimulatedScheduler, **load: Any) -> Stream:
    plan = [at % 90 if at % 20 < 17 else -1 for at in range(round(seconds / 0.32))]
    async with Stream(scheduler, LoadOptions("m", **load)) as stream:
        await stream.send(sound_of(plan))
        await stream.end()
    return stream


def test_text_comes_about_two_seconds_behind_and_the_rest_at_the_pause() -> None:
    scheduler = SimulatedScheduler(WordModel(), lambda: 0.05)
    stream = run(talk_of(60, scheduler))
    lags = sorted(stream.stats.lags_s)
    assert 0.5 < lags[len(lags) // 2] < 1.8
    assert lags[int(0.95 * len(lags))] < 2.5


@pytest.mark.parametrize("size", [1600, 4799, 8000])
def test_messages_do_not_stretch_the_steps(size: int) -> None:
    """A second is no multiple of 300 ms; the first decode is due after 0.75 s of speech."""
    scheduler = SimulatedScheduler(WordModel(), lambda: 0.05)

    async def live() -> None:
        async with Stream(scheduler) as stream:
            await stream.send(sound_of(range(28)), size)

    run(live())
    steps = [at for at, _, is_final in scheduler.utterances if not is_final]
    assert len(steps) == 9
    assert 0.75 < steps[0] < 0.9 + size / RATE
    assert np.mean(np.diff(steps)) == pytest.approx(1.0, abs=size / RATE / 8 + 0.01)


@pytest.mark.parametrize("takes_s", [0.1, 0.7])  # the second is still at it when the pause is long enough
def test_the_commit_in_a_pause_takes_the_answer_that_is_there(takes_s: float) -> None:
    scheduler = SimulatedScheduler(WordModel(), lambda: takes_s)
    plan = [*range(10), *PAUSE, *range(20, 32), *PAUSE]

    async def live() -> Stream:
        async with Stream(scheduler) as stream:
            await stream.send(sound_of(plan))
            await stream.end()
            return stream

    stream = run(live())
    assert folded(stream.text) == spoken(plan)
    pieces = [(words_in(utterance.samples)[0], utterance.samples.size) for _, utterance, _ in scheduler.utterances]
    assert len({*pieces}) == len(pieces)  # none is decoded twice
    assert [is_final for _, _, is_final in scheduler.utterances].count(True) == 2  # those at which speech was whole
    if takes_s == 0.1:
        ends_s = [3.2 - 0.032, 3.2 + 0.96 + 12 * 0.32 - 0.032]
        behind_s = [at - end_s for at, end_s in zip(eou_times(stream), ends_s, strict=True)]
        assert all(0.6 < each < 0.6 + 0.3 + 0.064 for each in behind_s)  # the pause and one message; no decode


def eou_times(stream: Stream) -> list[float]:
    return [at for at, event in zip(stream.times, stream.events, strict=True) if event.eou]


def test_a_slow_model_is_asked_more_seldom_instead_of_falling_behind() -> None:
    scheduler = SimulatedScheduler(WordModel(), lambda: 2.0)
    stream = run(talk_of(60, scheduler))
    provisional = [at for at, _, is_final in scheduler.utterances if not is_final]
    assert min(np.diff(provisional)) > 2.0
    assert stream.text == stream.transcripts[0].text


def test_a_stream_costs_as_much_in_its_last_minute_as_in_its_first() -> None:
    """L6: neither steps nor what is kept grow with the stream."""
    scheduler = SimulatedScheduler(WordModel(), lambda: 0.05)
    run(talk_of(600, scheduler))
    work = [sum(u.samples.size for at, u, _ in scheduler.utterances if low <= at < low + 120) for low in (60, 480)]
    assert work[1] < 1.1 * work[0]


def test_sound_that_comes_faster_than_the_model_follows_is_refused_at_a_minute() -> None:
    async def live() -> None:
        async with Stream(SimulatedScheduler(WordModel(), lambda: 1000.0)) as stream:
            stream.live.feed(np.zeros(59 * RATE, np.float32))
            with pytest.raises(FallingBehind, match="60 s of sound"):
                stream.live.feed(np.zeros(2 * RATE, np.float32))

    run(live())


def test_a_client_that_does_not_read_gets_its_text_in_few_messages() -> None:
    """Deltas merge, but not over the end of an utterance."""

    async def live() -> None:
        async with Stream(SimulatedScheduler(WordModel())) as stream:
            stream._collecting.cancel()
            await asyncio.wait({stream._collecting})
            await stream.live.start_over(TranscribeOptions())
            await stream.send(sound_of([*range(20), *PAUSE, *range(30, 50), *PAUSE]))
            assert [event.eou for event in stream.live._outbox] == [True, True]

    run(live())


def test_no_detector_no_endpoints() -> None:
    """With vad:off silence is given to the model, too; windows are cut when they are full."""
    scheduler = SimulatedScheduler(WordModel())
    plan = [1, 2, 3, *[-1] * 10, 4, 5, 6]

    async def live() -> Stream:
        async with Stream(scheduler, LoadOptions("m", vad=False)) as stream:
            await stream.send(sound_of(plan))
            await stream.end()
            return stream

    stream = run(live())
    assert folded(stream.transcripts[0].text) == spoken(plan)
    assert not any(event.eou for event in stream.events)
    assert sum(is_final for _, _, is_final in scheduler.utterances) == 1


def test_the_last_commit_of_a_slow_machine_settles_for_the_last_answer() -> None:
    waits = itertools.chain([0.1, 0.1], itertools.repeat(100.0))
    scheduler = SimulatedScheduler(WordModel(), lambda: next(waits))

    async def live() -> tuple[Stream, float]:
        async with Stream(scheduler) as stream:
            await stream.send(sound_of(range(9)))
            began = asyncio.get_running_loop().time()
            await stream.end()
            return stream, asyncio.get_running_loop().time() - began

    stream, took_s = run(live())
    (transcript,) = stream.transcripts
    assert took_s == pytest.approx(8.0, abs=0.1)
    assert stream.text == transcript.text
    assert len(folded(transcript.text)) >= 6
    assert SETTLED_EARLY in transcript.warnings[0]
