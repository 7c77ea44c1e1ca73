"""One AudioTranscriptionLive: the messages of a sound on an absolute schedule, and what comes back when.

A sleep that is too long delays its own message, not those after it. Times are seconds of the stream's clock, see
pacing.py, read from perf_counter at each send and each receive.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, nan
from typing import Any

import grpc

from backend.audio.waveform import SAMPLE_RATE, Samples
from backend.wire import backend_pb2 as pb
from devtools.live.pacing import Message, gateway_messages

Metadata = Sequence[tuple[str, str]]
UNLIMITED = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))


@dataclass(frozen=True)
class Event:
    """A reply with text, words or the end of an utterance. `at_s`: when it came. `words`: as on the wire."""

    at_s: float
    delta: str = ""
    eou: bool = False
    words: tuple[pb.TranscriptWord, ...] = ()


@dataclass
class LiveRun:
    """What one stream gave. `failure`: the status that it ended with, "" for OK.

    `request`: the id that stands in the server's log line. `ready_s`: from the config to `ready`. `sent_s`, `closed_s`,
    `final_at_s`: when each message, the half-close and the final result left or came; nan where they did not.
    """

    ready_s: float = nan
    sent_s: list[float] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    closed_s: float = nan
    final: pb.TranscriptResult | None = None
    final_at_s: float = nan
    failure: str = ""
    request: str = ""

    @property
    def text(self) -> str:
        """Of all deltas."""
        return "".join(event.delta for event in self.events)

    @property
    def is_whole(self) -> bool:
        """Whether the stream ended with OK and its deltas are its final text, byte for byte."""
        return not self.failure and self.final is not None and self.text == self.final.text

    @property
    def flush_s(self) -> float:
        """From the half-close to the final result; inf without one."""
        return self.final_at_s - self.closed_s if self.final is not None else inf


class LiveCall:
    """The call itself. `send` and `half_close` do nothing once the server has ended it: `replies` has the cause."""

    def __init__(
        self, stub: Any, language: str = "", params: Mapping[str, str] | None = None, metadata: Metadata = ()
    ) -> None:
        self._call = stub.AudioTranscriptionLive(metadata=tuple(metadata))
        self._config = pb.TranscriptLiveConfig(language=language, sample_rate=SAMPLE_RATE, params=dict(params or {}))

    async def open(self) -> float:
        """Sends the config and waits for `ready`; the seconds that this took. Raises grpc.aio.AioRpcError."""
        began = time.perf_counter()
        await self._call.write(pb.TranscriptLiveRequest(config=self._config))
        reply = await self._call.read()
        if reply is grpc.aio.EOF:
            await self._raise()
        assert reply.ready, "the first reply is not ready"
        return time.perf_counter() - began

    async def send(self, samples: Samples) -> None:
        await self._unless_ended(self._call.write(audio_message(samples)))

    async def send_message(self, message: pb.TranscriptLiveRequest) -> None:
        await self._unless_ended(self._call.write(message))

    async def half_close(self) -> None:
        await self._unless_ended(self._call.done_writing())

    async def replies(self) -> AsyncIterator[pb.TranscriptLiveResponse]:
        """To the end of the call. Raises grpc.aio.AioRpcError."""
        while (reply := await self._call.read()) is not grpc.aio.EOF:
            yield reply
        await self._raise()

    async def trailing(self) -> dict[str, str]:
        """Of the call that has ended."""
        return {key: str(value) for key, value in await self._call.trailing_metadata() or ()}

    def cancel(self) -> None:
        self._call.cancel()

    async def _raise(self) -> None:
        """Unless the status is OK."""
        if await self._call.code() is not grpc.StatusCode.OK:
            raise grpc.aio.AioRpcError(
                await self._call.code(), grpc.aio.Metadata(), grpc.aio.Metadata(), await self._call.details()
            )

    async def _unless_ended(self, sending: Any) -> None:
        try:
            await sending
        except (asyncio.InvalidStateError, grpc.aio.AioRpcError):
            if not self._call.done():
                raise


def audio_message(samples: Samples) -> pb.TranscriptLiveRequest:
    return pb.TranscriptLiveRequest(audio=pb.TranscriptLiveAudio(pcm=samples.tolist()))


TimedMessage = tuple[float, pb.TranscriptLiveRequest]


def timed_messages(samples: Samples, plan: Iterable[Message] | None = None) -> list[TimedMessage]:
    """The messages of a sound and when each is due; `plan`: others than the gateway's.

    Made before anybody speaks: what a client computes meanwhile would count as the server's lag, also other clients'.
    """
    plan = gateway_messages(samples.size) if plan is None else plan
    return [(each.due_s, audio_message(samples[each.first : each.last])) for each in plan]


async def speak(
    stub: Any,
    messages: Sequence[TimedMessage],
    *,
    language: str = "",
    params: Mapping[str, str] | None = None,
    metadata: Metadata = (),
) -> LiveRun:
    """Sends sound as it is spoken, half-closes, and returns all that came. A failed stream has a `failure`."""
    run = LiveRun()
    call = LiveCall(stub, language, params, metadata)
    try:
        run.ready_s = await call.open()
        epoch = time.perf_counter() - (messages[0][0] if messages else 0.0)
        sending = asyncio.ensure_future(_send(call, messages, epoch, run))
        try:
            await _receive(call, epoch, run)
        finally:
            sending.cancel()
            await asyncio.wait({sending})
        run.request = (await call.trailing()).get("x-request-id", "")
    except grpc.aio.AioRpcError as error:
        run.failure = f"{error.code().name}: {error.details()}"
    finally:
        call.cancel()
    return run


async def _send(call: LiveCall, messages: Sequence[TimedMessage], epoch: float, run: LiveRun) -> None:
    for due_s, message in messages:
        await asyncio.sleep(max(epoch + due_s - time.perf_counter(), 0.0))
        await call.send_message(message)
        run.sent_s.append(time.perf_counter() - epoch)
    run.closed_s = time.perf_counter() - epoch
    await call.half_close()


async def _receive(call: LiveCall, epoch: float, run: LiveRun) -> None:
    async for reply in call.replies():
        at_s = time.perf_counter() - epoch
        if reply.HasField("final_result"):
            run.final, run.final_at_s = reply.final_result, at_s
        if reply.delta or reply.eou or reply.words:
            run.events.append(Event(at_s, reply.delta, reply.eou, tuple(reply.words)))
