"""The end of a live stream in time, whatever waits then: sound, decodes, words, the model's load. In virtual time.

The gateway gives up 10 s after the sound's end, and throws away what was recognised.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from simulated_speech import RATE, SimulatedScheduler, Stream, WordModel, name, numbers, sound_of
from virtual_time import run

from backend.errors import FallingBehind, ModelNotLoaded, NothingInTime, StillLoading
from backend.live.utterance_recognition import SETTLED_EARLY
from backend.options.load_options import LoadOptions, TranscribeOptions
from backend.pipeline.transcript_builder import Transcript
from backend.process.request_warning import kinds_of
from backend.thresholds import LIVE_FINAL_S
from backend.transcript.matching import fold

pytestmark = pytest.mark.usefixtures("level_detector")

WORD_S = 0.32
talks = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 5)), min_size=1, max_size=4)  # words, pauses behind them


def now() -> float:
    return asyncio.get_running_loop().time()


def folded(text: str) -> list[str]:
    return [fold(word) for word in text.split()]


def unrecognized_s(transcript: Transcript) -> float:
    """How many seconds of speech the warnings say are missing at the end."""
    found = [warning for warning in transcript.warnings if "unrecognized" in kinds_of(warning)]
    assert len(found) <= 1
    return float(re.match(r"[\d.]+", found[0])[0]) if found else 0.0  # type: ignore[index]


async def ended(
    stream: Stream, plan: list[int], size: int = 4800, pace: float = 1.0, how: str = "half-close"
) -> tuple[float, Transcript | None]:
    """Send the talk at `pace` times the speaker's; the seconds from its end to the stream's, and the transcript."""
    async with stream:
        sound = sound_of(plan)
        for at in range(0, sound.size, size):
            part = sound[at : at + size]
            await asyncio.sleep(part.size / RATE / pace)
            stream.live.feed(part)
        began = now() + (stream.load.live_quiet_s if how == "quiet" else 0.0)
        final = await stream.end() if how == "half-close" else await quiet(stream)
        return stream.ended_at - began, final


async def quiet(stream: Stream) -> Transcript | None:
    await asyncio.wait({stream._collecting})
    return stream.transcripts[0] if stream.transcripts else None


@settings(max_examples=150, deadline=None)
@given(
    talks,
    st.sampled_from([500, 4800, 100_000]),
    st.sampled_from([1.0, 1.0, 20.0]),
    st.lists(st.sampled_from([0.05, 0.5, 2.0, 6.0, 9.0, 60.0]), min_size=1, max_size=6),
    st.one_of(st.none(), st.floats(0, 60)),
    st.sampled_from(["half-close", "quiet"]),
    st.booleans(),
    st.floats(0, 30),
)
@example([(40, 1), (40, 0)], 4800, 1.0, [0.05] * 14 + [60.0], None, "half-close", False, 0.0)  # late behind a cut
def test_a_stream_ends_within_the_deadline_and_says_what_it_has_not_recognised(
    talk: list[tuple[int, int]],
    size: int,
    pace: float,
    takes_s: list[float],
    loads_s: float | None,
    how: str,
    words: bool,
    aligns_s: float,
) -> None:
    """L1, L10 and law 4. Each decode takes the next of `takes_s`, the rest the last of them."""
    plan = numbers(talk)
    takes = itertools.chain(takes_s, itertools.repeat(takes_s[-1]))
    scheduler = SimulatedScheduler(WordModel(), lambda: next(takes), aligns_s=aligns_s)
    stream = Stream(scheduler, LoadOptions("m"), TranscribeOptions(times=words, words=words), loads_s)
    try:
        took_s, final = run(ended(stream, plan, size, pace, how))
    except FallingBehind:  # of `feed`: over a minute of sound waits
        return
    spoken = [name(number) for number in plan if number >= 0]
    assert took_s <= LIVE_FINAL_S + 1e-6
    if final is None:
        assert isinstance(stream.error, NothingInTime | StillLoading)
        assert spoken
        assert not stream.text
        return
    heard = folded(final.text)
    assert stream.text == final.text
    assert heard == spoken[: len(heard)]  # of the sound's end nothing is there, of what comes before all
    assert heard or not spoken
    missing_s = (len(spoken) - len(heard)) * WORD_S
    told_s = unrecognized_s(final)
    kinds = {kind for warning in final.warnings for kind in kinds_of(warning)}
    assert told_s == pytest.approx(missing_s, abs=WORD_S)
    if took_s < LIVE_FINAL_S - 1e-6:
        assert heard == spoken
        assert not kinds
    assert (scheduler.at_once, scheduler.speaking) == (0, 0)


def slow_from(decode: int, takes_s: float) -> Callable[[], float]:
    """The first decodes take 0.1 s, those from that number on `takes_s`."""
    waits = itertools.chain([0.1] * decode, itertools.repeat(takes_s))
    return lambda: next(waits)


PAUSE = [-1, -1, -1]  # 0.96 s


def test_what_waits_when_time_is_over_is_told_in_seconds() -> None:
    """The first utterance is recognised, the second is not, the third waits behind it."""
    plan = [*range(6), *PAUSE, *range(10, 20), *PAUSE, *range(30, 40)]
    scheduler = SimulatedScheduler(WordModel())
    scheduler.takes_s = lambda: 0.1 if now() < 3.2 else 100.0
    took_s, final = run(ended(Stream(scheduler), plan))
    assert took_s == pytest.approx(LIVE_FINAL_S)
    assert final is not None
    assert folded(final.text) == [name(number) for number in range(6)]
    assert [kinds_of(warning) for warning in final.warnings] == [("unrecognized",)]
    assert unrecognized_s(final) == pytest.approx(20 * WORD_S, abs=WORD_S)
    assert "quantization int8" in final.warnings[0]
    assert final.duration_s == pytest.approx(len(plan) * WORD_S)


def test_speech_behind_the_last_answer_of_a_window_is_told_beside_it() -> None:
    scheduler = SimulatedScheduler(WordModel(), slow_from(2, 100.0))
    took_s, final = run(ended(Stream(scheduler), [*range(30)]))
    assert took_s == pytest.approx(LIVE_FINAL_S)
    assert final is not None
    heard = folded(final.text)
    assert 0 < len(heard) < 10
    assert [kinds_of(warning) for warning in final.warnings] == [("settled_early",), ("unrecognized",)]
    assert SETTLED_EARLY in final.warnings[0]
    assert unrecognized_s(final) == pytest.approx((30 - len(heard)) * WORD_S, abs=WORD_S)
    assert final.segments[-1].end_s <= (len(heard) + 2) * WORD_S  # its words are not spread over what was not heard


def test_a_commit_that_runs_when_the_sound_ends_is_waited_for_no_longer() -> None:
    """A minute for the first utterance's; its client closes 2 s later, with a second utterance behind it."""
    scheduler = SimulatedScheduler(WordModel(), slow_from(1, 60.0))
    plan = [*range(6), *PAUSE, *range(10, 16)]
    took_s, final = run(ended(Stream(scheduler), plan))
    assert took_s == pytest.approx(LIVE_FINAL_S)
    assert final is not None
    heard = folded(final.text)
    assert 0 < len(heard) < 6
    assert unrecognized_s(final) == pytest.approx((12 - len(heard)) * WORD_S, abs=WORD_S)


@pytest.mark.parametrize("how", ["half-close", "quiet"])
def test_speech_of_which_nothing_was_recognised_is_no_empty_transcript(how: str) -> None:
    took_s, final = run(ended(stream := Stream(SimulatedScheduler(WordModel(), lambda: 100.0)), [*range(12)], how=how))
    assert took_s <= LIVE_FINAL_S + 1e-6
    assert final is None
    assert isinstance(stream.error, NothingInTime)
    assert "smaller model" in str(stream.error)


@pytest.mark.parametrize(("load", "plan"), [({}, [*range(5)]), ({"vad": False}, [-1] * 9)])
def test_a_model_that_is_still_loaded_is_an_error_where_somebody_spoke(load: Any, plan: list[int]) -> None:
    """Without a detector nobody knows."""
    stream = Stream(SimulatedScheduler(WordModel()), LoadOptions("m", **load), loads_s=100.0)
    took_s, final = run(ended(stream, plan))
    assert took_s == pytest.approx(LIVE_FINAL_S)
    assert final is None
    assert isinstance(stream.error, StillLoading)
    assert "idle_unload_seconds" in str(stream.error)


def test_a_model_that_was_freed_while_it_was_loaded_is_told_as_such() -> None:
    stream = Stream(SimulatedScheduler(WordModel()), loads_s=100.0, is_freed=True)
    _, final = run(ended(stream, [*range(5)]))
    assert final is None
    assert isinstance(stream.error, ModelNotLoaded)


def test_silence_needs_no_model() -> None:
    stream = Stream(SimulatedScheduler(WordModel()), loads_s=100.0)
    took_s, final = run(ended(stream, [-1] * 9))
    assert took_s == pytest.approx(LIVE_FINAL_S)
    assert final is not None
    assert (final.text, final.warnings) == ("", ())
    assert final.duration_s == pytest.approx(9 * WORD_S)


def test_a_model_that_is_loaded_in_time_recognises_what_waits() -> None:
    """A second is left of the deadline: enough for two commits, as nothing else is decoded."""
    plan = [*range(12), *PAUSE, *range(20, 32)]
    scheduler = SimulatedScheduler(WordModel(), lambda: 0.4)
    stream = Stream(scheduler, loads_s=len(plan) * WORD_S + LIVE_FINAL_S - 1)
    took_s, final = run(ended(stream, plan))
    assert took_s == pytest.approx(LIVE_FINAL_S - 0.2)
    assert final is not None
    assert folded(final.text) == [name(number) for number in plan if number >= 0]
    assert len(scheduler.utterances) == 2


def test_the_first_decode_of_a_window_is_worth_waiting_for() -> None:
    """It began before the sound's end and ends in time; the commit, which would begin anew, does not."""
    waits = itertools.chain([5.0], itertools.repeat(100.0))
    scheduler = SimulatedScheduler(WordModel(), lambda: next(waits))
    took_s, final = run(ended(Stream(scheduler), [*range(14)]))
    assert took_s == pytest.approx(LIVE_FINAL_S)
    assert final is not None
    assert folded(final.text)
    assert kinds_of(final.warnings[0]) == ("settled_early",)


def test_a_decode_that_runs_is_worth_more_than_a_commit_that_will_be_late() -> None:
    """The first has heard a second of the sound, the second, which runs when it ends, all but a second."""
    took_s, final = run(ended(Stream(SimulatedScheduler(WordModel(), lambda: 8.5)), [*range(45)]))
    assert took_s == pytest.approx(LIVE_FINAL_S)
    assert final is not None
    assert len(folded(final.text)) >= 40
    assert unrecognized_s(final) <= 5 * WORD_S


def test_words_that_the_aligner_has_not_timed_in_time_are_told() -> None:
    scheduler = SimulatedScheduler(WordModel(), aligns_s=20.0)
    plan = [*range(12), *PAUSE, *range(20, 32)]
    stream = Stream(scheduler, options=TranscribeOptions(times=True, words=True))
    took_s, final = run(ended(stream, plan))
    assert took_s == pytest.approx(LIVE_FINAL_S)
    assert final is not None
    assert folded(final.text) == [name(number) for number in plan if number >= 0]
    assert [kinds_of(warning) for warning in final.warnings] == [("aligner_late",)]
