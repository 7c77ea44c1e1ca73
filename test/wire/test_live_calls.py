"""One call of AudioTranscriptionLive from `ready` to its end, whatever the model does meanwhile. In virtual time.

Properties of random talks: when the client begins, closes, starts over or leaves, how long the model loads and decodes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live_client import audio, config
from simulated_speech import RATE, SimulatedScheduler, WordModel, name, numbers, sound_of
from virtual_time import run

from backend.errors import NothingInTime
from backend.live.live_transcriber import LiveTranscriber
from backend.options.load_options import LoadOptions
from backend.pipeline.admission import Admission
from backend.process.request_stats import QUIET, RequestStats
from backend.serving.idle.usage import Usage
from backend.serving.model_instance import Equipped
from backend.thresholds import LIVE_FINAL_S
from backend.transcript.matching import fold
from backend.wire import backend_pb2 as pb
from backend.wire.live import live_responses

pytestmark = pytest.mark.usefixtures("level_detector")

MESSAGE = 4800
talks = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 5)), min_size=1, max_size=3)  # words, pauses behind them


def now() -> float:
    return asyncio.get_running_loop().time()


@dataclass
class Call:
    """A client of one call, and what it saw. `load_s`: how long the model's load takes; None: it is in memory."""

    takes_s: float
    load_s: float | None = None
    reads_after_s: float = 0.0  # how long the client takes for each response
    responses: list[tuple[float, pb.TranscriptLiveResponse]] = field(default_factory=list)
    asked: list[float] = field(default_factory=list)  # when the server was ready for each message
    stats: RequestStats = field(default_factory=RequestStats)

    def __post_init__(self) -> None:
        self.scheduler = SimulatedScheduler(WordModel(), lambda: self.takes_s)
        load, self.admission = LoadOptions("m"), Admission(available=lambda: 1e12)
        instance: Any = Equipped(load, self.scheduler.model, None)  # type: ignore[arg-type]

        async def acquired() -> Any:
            await asyncio.sleep(self.load_s or 0.0)
            return instance

        self.usage = Usage(lambda: 0.0)
        state = "loaded" if self.load_s is None else "released"
        resident: Any = SimpleNamespace(
            options=load,
            aligns=False,
            usage=self.usage,
            state=state,
            acquired=acquired,
            current=lambda: instance,
            check_loaded=lambda: None,
        )
        scheduler: Any = self.scheduler
        self.transcriber = LiveTranscriber(resident, scheduler, self.admission)

    async def _requests(self, plan: list[tuple[float, pb.TranscriptLiveRequest]]) -> AsyncIterator[Any]:
        for at, request in plan:
            self.asked.append(now())
            await asyncio.sleep(max(at - now(), 0.0))
            yield request

    async def talk(self, plan: list[tuple[float, pb.TranscriptLiveRequest]], closes: bool = True) -> None:
        """Send each request at its time, and then close this side, or never."""

        async def requests() -> AsyncGenerator[Any]:
            async for request in self._requests(plan):
                yield request
            if not closes:
                await asyncio.sleep(1e6)

        async with (
            aclosing(requests()) as sent,
            aclosing(live_responses(sent, self.transcriber, self.stats)) as responses,
        ):
            async for response in responses:
                self.responses.append((now(), response))
                await asyncio.sleep(self.reads_after_s)

    @property
    def left_behind(self) -> tuple[int, ...]:
        """Streams, requests that are admitted, uses of the model, jobs, and streams in which somebody speaks."""
        uses, jobs = self.usage._of_model.count, self.scheduler.at_once
        return self.transcriber.streams, len(self.admission._shares), uses, jobs, self.scheduler.speaking


def spoken(begin_s: float, sound: Any) -> list[tuple[float, pb.TranscriptLiveRequest]]:
    """The sound in messages, each when it has been spoken."""
    parts = [(end, sound[end - MESSAGE : end]) for end in range(MESSAGE, sound.size + MESSAGE, MESSAGE)]
    return [(begin_s + min(end, sound.size) / RATE, audio(part)) for end, part in parts]


def texts_of(responses: list[tuple[float, pb.TranscriptLiveResponse]]) -> tuple[str, list[str]]:
    """The deltas together, and the texts of all final results."""
    finals = [response.final_result.text for _, response in responses if response.HasField("final_result")]
    return "".join(response.delta for _, response in responses), finals


@settings(max_examples=40)
@given(
    talks,
    st.floats(0, 60),
    st.one_of(st.none(), st.floats(0, 5)),
    st.floats(0, 40),
    st.floats(0, 2),
)
def test_ready_and_reading_never_wait_for_the_model(
    talk: list[tuple[int, int]], takes_s: float, load_s: float | None, until_s: float, reads_after_s: float
) -> None:
    """L8, L9 and L10: a model that takes up to a minute for each answer, and a client that closes at any point.

    There is one final result, or an error instead where nothing of the speech was recognised in time.
    """
    call = Call(takes_s, load_s, reads_after_s)
    begin_s = 1.0
    sent = [each for each in spoken(begin_s, sound_of(numbers(talk))) if each[0] <= until_s]
    is_late = False
    try:
        run(call.talk([(begin_s, config()), *sent]))
    except NothingInTime:
        is_late = True
    (ready_at, ready), *rest = call.responses
    assert ready == pb.TranscriptLiveResponse(ready=True)
    assert ready_at == begin_s  # L8
    before = [begin_s, *(at for at, _ in sent)][: len(sent)]
    expected = [max(at, begin_s + reads_after_s) for at in before]  # L9: as soon as the one before came
    assert call.asked[1:] == pytest.approx(expected)
    assert not any(response.ready for _, response in rest)
    text, finals = texts_of(rest)
    assert finals == ([] if is_late else [text])  # L10
    assert rest == [] if is_late else rest[-1][1].HasField("final_result")
    assert call.left_behind == (0,) * 5


@settings(max_examples=40)
@given(st.integers(10, 28), st.integers(0, 5), st.floats(0, 0.3), st.floats(0, 60), st.integers(0, 40))
def test_a_final_result_waits_at_most_eight_seconds_for_a_slow_model(
    words: int, pauses: int, takes_s: float, then_takes_s: float, unsent: int
) -> None:
    """L10: from when the client closes, also where the last commit had begun before that.

    The model is slow from the third second on, when it has answered for the beginning of the window.
    """
    call = Call(takes_s)
    sent = spoken(0.0, sound_of(numbers([(words, pauses)])))
    sent = sent[: max(len(sent) - unsent, 10)]
    call.scheduler.takes_s = lambda: takes_s if now() < 2.5 else then_takes_s
    run(call.talk([(0.0, config()), *sent]))
    text, (final,) = texts_of(call.responses)
    assert text == final != ""
    assert call.responses[-1][0] <= sent[-1][0] + LIVE_FINAL_S + 1e-6


@settings(max_examples=40)
@given(talks, st.floats(0.1, 29), st.sampled_from(["start over", "cancel", "free", "quiet"]), st.floats(0, 1.5))
def test_a_call_may_start_over_or_end_at_any_point(
    talk: list[tuple[int, int]], until_s: float, how: str, takes_s: float
) -> None:
    """L10, L11 and L14: a second config; a client that leaves, or a deadline; Free, or a stop; no sound any more."""
    call, plan = Call(takes_s), numbers(talk)
    sent = [(0.0, config()), *(each for each in spoken(0.0, sound_of(plan)) if each[0] <= until_s)]
    if how == "start over":
        again_s = until_s + 1e-4  # no event of before comes at that very time
        sent += [(again_s, config(language="en")), *spoken(again_s, sound_of(plan))]

    async def talked() -> None:
        task = asyncio.create_task(call.talk(sent, closes=how == "start over"))
        await asyncio.wait({task}, timeout=until_s)
        if how == "cancel":
            task.cancel()
        elif how == "free":
            call.transcriber.finish_all()
        await asyncio.wait({task})
        assert task.cancelled() == (how == "cancel")
        assert task.cancelled() or task.exception() is None

    run(talked())
    assert call.left_behind == (0,) * 5  # L14
    assert [response.ready for _, response in call.responses] == [True, *[False] * (len(call.responses) - 1)]
    text, finals = texts_of([each for each in call.responses if how != "start over" or each[0] > until_s])
    assert finals == ([] if how == "cancel" else [text])  # L10
    assert (call.stats.finish == QUIET) == (how == "quiet")
    if how == "start over":  # L11
        assert [fold(word) for word in text.split()] == [name(number) for number in plan if number >= 0]
        assert call.responses[-1][1].final_result.duration == pytest.approx(sound_of(plan).size / RATE)
