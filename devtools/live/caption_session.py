"""One stream onto a terminal: sends the sound, shows what comes back, and says how far that is behind the speaker."""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc

from backend.audio.waveform import SAMPLE_RATE, Samples
from backend.wire import backend_pb2 as pb
from devtools.live.captions import Captions
from devtools.live.paced_client import LiveCall
from devtools.live.speech_clock import SpeechClock

_REFRESH_S = 0.2


class StreamFailed(Exception):
    """The stream's status, with its message."""


@dataclass
class Session:
    """What is shown of one stream. `stop`: set, the sound ends."""

    captions: Captions
    clock: SpeechClock = field(default_factory=SpeechClock)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    behind_s: list[float] = field(default_factory=list)  # when text came, see SpeechClock
    heard: int = 0  # samples
    epoch: float = 0.0  # perf_counter when the first sample was spoken
    shown: str = ""
    shown_at_s: float = 0.0
    is_over: bool = False  # the utterance, as the server judges it

    @property
    def now_s(self) -> float:
        return time.perf_counter() - self.epoch

    def hear(self, samples: Samples) -> None:
        self.heard += samples.size
        spoken = time.perf_counter() - self.heard / SAMPLE_RATE
        self.epoch = min(self.epoch, spoken) if self.epoch else spoken
        self.clock.hear(samples)

    def show(self, reply: pb.TranscriptLiveResponse) -> None:
        """A reply's text, in a new line if the words before it were another utterance's."""
        now_s = self.now_s
        if reply.delta:
            is_new = self.clock.resumed_after(self.shown_at_s) and self.captions.is_sentence
            if self.is_over or is_new:
                if not self.is_over:
                    self.clock.utterance_ended(self.shown_at_s)
                self.captions.end()
                self.is_over = False
            self.captions.add(reply.delta, self.clock.began_s(self.shown_at_s))
            self.shown, self.shown_at_s = self.shown + reply.delta, now_s
            self.clock.shown(reply.delta)
            if behind_s := self.clock.behind_s(now_s):
                self.behind_s.append(behind_s)
        if reply.eou:
            self.is_over = True
            self.clock.utterance_ended(now_s)

    def refresh(self) -> None:
        self.captions.behind(self.clock.behind_s(self.now_s) or None)


async def show(call: LiveCall, source: AsyncIterator[Samples], session: Session) -> tuple[pb.TranscriptResult, float]:
    """Sends the sound and shows what comes; the final result, and the seconds that it took after the sound's end.

    Raises StreamFailed.
    """
    final, closed_at = pb.TranscriptResult(), time.perf_counter()
    tasks: list[asyncio.Task[None]] = []

    async def feed() -> None:
        nonlocal closed_at
        async for samples in _until(session.stop, source):
            session.hear(samples)
            await call.send(samples)
        closed_at = time.perf_counter()
        await call.half_close()

    async def refresh() -> None:
        while True:
            await asyncio.sleep(_REFRESH_S)
            session.refresh()

    try:
        await call.open()
        say("listening; Ctrl-C ends")
        tasks = [asyncio.ensure_future(feed()), asyncio.ensure_future(refresh())]
        async for reply in call.replies():
            session.show(reply)
            if reply.HasField("final_result"):
                final = reply.final_result
    except grpc.aio.AioRpcError as error:
        raise StreamFailed(f"{error.details()} ({error.code().name})") from error
    finally:
        session.captions.end()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return final, time.perf_counter() - closed_at


async def _until(stop: asyncio.Event, source: AsyncIterator[Samples]) -> AsyncIterator[Samples]:
    """The source until it ends or `stop` is set: a recorder may wait for sound that never comes."""
    stopped = asyncio.ensure_future(stop.wait())
    try:
        while True:
            following: asyncio.Future[Any] = asyncio.ensure_future(anext(source, None))
            await asyncio.wait({stopped, following}, return_when=asyncio.FIRST_COMPLETED)
            if not following.done() or (samples := following.result()) is None:
                following.cancel()
                return
            yield samples
    finally:
        stopped.cancel()


def summary(session: Session, flush_s: float) -> str:
    parts = [f"{session.heard / SAMPLE_RATE:.1f} s of sound"]
    if session.behind_s:
        ordered = sorted(session.behind_s)
        p95_s = ordered[min(int(0.95 * len(ordered)), len(ordered) - 1)]
        median_s = statistics.median(ordered)
        parts.append(f"words about {median_s:.1f} s behind the speaker (95 %: {p95_s:.1f} s)")
    return ", ".join([*parts, f"the rest {flush_s:.2f} s after the end of the sound"])


def say(text: str) -> None:
    print(f"live: {text}", file=sys.stderr)
