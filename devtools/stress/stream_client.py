"""Streams of the server under test: files whose text comes in pieces, and speakers. Outcomes as of the unary call.

A stream whose deltas are not its final text, byte for byte, or that has two finals, is TORN.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random

import grpc

from backend.audio.waveform import SAMPLE_RATE, Samples
from backend.wire import backend_pb2 as pb
from devtools.live.paced_client import LiveCall, LiveRun, speak, timed_messages
from devtools.live.pacing import Message
from devtools.stress.client import LOST, OK, Outcome, Request, Server, Stub, noise
from devtools.stress.fakes import text_of
from devtools.stress.plan import prompt_for

TORN = "torn"
_LOST_CODES = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "UNKNOWN")
_SHORTEST, _LONGEST = 1, 8_000  # samples of a message
_FILE = Path()  # a speaker has none


@dataclass(frozen=True)
class Speaker:
    """Noise that nobody else says, and the text that must come back."""

    samples: Samples
    text: str
    prompt: str = ""
    language: str = ""

    @property
    def params(self) -> dict[str, str]:
        return {"prompt": self.prompt} if self.prompt else {}

    @property
    def request(self) -> Request:
        return Request(_FILE, self.text, self.prompt, self.language)


def speaker(seed: int, seconds: float, steps: int, *, marked: bool = False, language: str = "") -> Speaker:
    samples, prompt = noise(seed, seconds, marked=marked), prompt_for(steps, seed)
    return Speaker(samples, text_of(samples, prompt, language or None), prompt, language)


def uneven_messages(size: int, chance: Random, pace: float = 1.0) -> Iterator[Message]:
    """Messages of any length, each due when its sound has been spoken, `pace` times as fast as speech."""
    edges = [0]
    while edges[-1] < size:
        edges.append(min(size, edges[-1] + chance.randint(_SHORTEST, _LONGEST)))
    return (Message(last / SAMPLE_RATE / pace, first, last) for first, last in pairwise(edges))


async def say(server: Server, speaker: Speaker, stub: Stub | None = None, plan: Iterable[Message] | None = None,
              timeout_s: float = 60.0) -> Outcome:  # fmt: skip
    """Over a connection of its own without `stub`. Never raises for what the server or the connection does."""
    async with nullcontext(stub) if stub else server.connect() as used:
        began = time.monotonic()
        sound = timed_messages(speaker.samples, plan)
        speaking = speak(used, sound, language=speaker.language, params=speaker.params)
        try:
            run = await asyncio.wait_for(speaking, timeout_s)
        except TimeoutError:
            return Outcome(speaker.request, LOST, time.monotonic() - began, details=f"no end within {timeout_s:g} s")
        return outcome_of(speaker.request, run, time.monotonic() - began)


def outcome_of(request: Request, run: LiveRun, took_s: float) -> Outcome:
    if run.failure or run.final is None:
        code = run.failure.partition(":")[0] or "no final result"
        return Outcome(request, LOST if code in _LOST_CODES else code, took_s, details=run.failure)
    return Outcome(request, OK if run.is_whole else TORN, took_s, run.final)


async def stream_file(server: Server, request: Request, stub: Stub | None = None, timeout_s: float = 60.0,
                      read_every_s: float = 0.0) -> Outcome:  # fmt: skip
    """As Server.transcribe, by AudioTranscriptionStream. A slow reader waits `read_every_s` before each reply."""
    async with nullcontext(stub) if stub else server.connect() as used:
        began = time.monotonic()
        call = used.AudioTranscriptionStream(request.message, timeout=timeout_s)
        text, finals = "", list[pb.TranscriptResult]()
        try:
            while (reply := await call.read()) is not grpc.aio.EOF:
                text += reply.delta
                finals += [reply.final_result] if reply.HasField("final_result") else []
                await asyncio.sleep(read_every_s)
            code = await call.code()
        except grpc.aio.AioRpcError as error:
            code = error.code()
        took_s = time.monotonic() - began
        if code is not grpc.StatusCode.OK:
            details = f"{code.name}: {await call.details()}"
            return Outcome(request, LOST if code.name in _LOST_CODES else code.name, took_s, details=details)
        is_whole = len(finals) == 1 and finals[0].text == text
        return Outcome(request, OK if is_whole else TORN, took_s, finals[-1] if finals else pb.TranscriptResult())


async def open_streams(stub: Stub, speakers: Sequence[Speaker]) -> list[LiveCall]:
    """Streams that are ready. Raises grpc.aio.AioRpcError."""
    calls = [LiveCall(stub, each.language, each.params) for each in speakers]
    for call in calls:
        await call.open()
    return calls


async def free_after_s(server: Server, probe: Speaker, timeout_s: float) -> float:
    """Seconds until a stream can be opened; `timeout_s` where none could."""
    began = time.monotonic()
    async with server.connect() as stub:
        while time.monotonic() - began < timeout_s:
            call = LiveCall(stub, params=probe.params)
            try:
                await call.open()
                return time.monotonic() - began
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.01)
            finally:
                call.cancel()
    return timeout_s
