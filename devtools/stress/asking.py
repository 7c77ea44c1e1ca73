"""Clients: what is sent, what came of it, and how long it took.

Every outcome is one of: an answer, a refusal by status, or lost (nothing came in time, or the connection broke). A
status that the server may never send counts as what it is; UNAVAILABLE is lost, because only a broken connection says
it. As the gateway does it, each call may have a connection of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from backend.audio.waveform import SAMPLE_RATE
from backend.wire import backend_pb2 as pb
from backend.wire import backend_pb2_grpc
from devtools.stress.child import CHANNEL, Child
from devtools.stress.sounds import noise, text_of, write

OK, CANCELLED, LOST = "OK", "CANCELLED", "lost"
_LOST = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNKNOWN)
PATIENCE_S = 60.0
_APART = (("grpc.use_local_subchannel_pool", 1),)  # else channels to one address share a connection


@dataclass(frozen=True)
class Wanted:
    """A recording to ask for, and the text that must come back."""

    path: Path
    text: str
    prompt: str = ""
    language: str = ""
    times: bool = False

    @property
    def request(self) -> pb.TranscriptRequest:
        return pb.TranscriptRequest(
            dst=str(self.path),
            prompt=self.prompt,
            language=self.language,
            diarize=True,
            timestamp_granularities=["word"] if self.times else [],
        )


@dataclass(frozen=True)
class Outcome:
    """`status`: a gRPC code's name, or LOST."""

    status: str
    took_s: float
    result: pb.TranscriptResult = field(default_factory=pb.TranscriptResult)
    warning: str = ""
    details: str = ""

    def is_exact(self, wanted: Wanted) -> bool:
        return self.status == OK and self.result.text == wanted.text and not faults_of(self.result)


def own_sound(folder: Path, seed: int, seconds: float, prompt: str = "", *, times: bool = False, marked: bool = False,
              language: str = "") -> Wanted:  # fmt: skip
    """A recording of at most a chunk that nobody else sends."""
    samples = noise(seed, seconds, marked=marked)
    path = write(folder / f"{seed}-{seconds:g}{'m' * marked}.wav", samples)
    return Wanted(path, text_of(samples, prompt, language or None), prompt, language, times)


def faults_of(result: pb.TranscriptResult) -> list[str]:
    """What the contract does not allow of a reply, however odd the recording: none, if all is well."""
    last_ns = result.duration * 1e9 * (1 + 1e-6) + 1e9 / SAMPLE_RATE
    found, position, before = [], 0, 0
    if bool(result.text) != bool(result.segments):
        found.append("text and segments do not go together")
    for number, segment in enumerate(result.segments):
        if segment.id != number or not segment.tokens:
            found.append("a segment without its number or tokens")
        if not before <= segment.start < segment.end <= last_ns:
            found.append("a segment's times are not in order or not inside")
        at = result.text.find(segment.text, position)
        if at < 0:
            found.append("a segment that is no slice of the text")
        position, before = max(at, position) + len(segment.text), segment.end
    return found


@contextlib.asynccontextmanager
async def connected(address: str) -> AsyncIterator[backend_pb2_grpc.BackendStub]:
    """A connection of its own."""
    async with grpc.aio.insecure_channel(address, options=(*CHANNEL, *_APART)) as channel:
        yield backend_pb2_grpc.BackendStub(channel)  # type: ignore[no-untyped-call] # generated without types


async def asked(stub: backend_pb2_grpc.BackendStub, wanted: Wanted, patience_s: float = PATIENCE_S) -> Outcome:
    """Never raises for what the server or the connection does."""
    began = time.monotonic()
    call = stub.AudioTranscription(wanted.request, timeout=patience_s)
    try:
        result = await call
        trailing = dict(await call.trailing_metadata() or ())
    except grpc.aio.AioRpcError as error:
        status = LOST if error.code() in _LOST else error.code().name
        return Outcome(status, time.monotonic() - began, details=f"{error.code().name}: {error.details()}")
    return Outcome(OK, time.monotonic() - began, result, str(trailing.get("x-asr-warning", "")))


async def asked_anew(address: str, wanted: Wanted, patience_s: float = PATIENCE_S) -> Outcome:
    """Over a connection of its own."""
    async with connected(address) as stub:
        return await asked(stub, wanted, patience_s)


async def all_asked(address: str, all_wanted: Iterable[Wanted], patience_s: float = PATIENCE_S) -> list[Outcome]:
    """All at once."""
    return await asyncio.gather(*(asked_anew(address, wanted, patience_s) for wanted in all_wanted))


def golden_is_exact(child: Child, golden: Wanted, patience_s: float = 10.0) -> bool:
    """Whether the server still hears what it is given."""
    return asyncio.run(asked_anew(child.address, golden, patience_s)).is_exact(golden)


def statuses(outcomes: Sequence[Outcome]) -> str:
    """`8 OK, 1 INTERNAL`."""
    counts = Counter(outcome.status for outcome in outcomes)
    return ", ".join(f"{count} {status}" for status, count in counts.most_common()) or "none"


async def healths(address: str, ended: asyncio.Event, every_s: float = 0.02) -> list[float]:
    """Asks for Health again and again until the event; seconds of each, or infinity for one that did not come."""
    took: list[float] = []
    async with connected(address) as stub:
        while not ended.is_set():
            began = time.monotonic()
            try:
                await stub.Health(pb.HealthMessage(), timeout=5.0)
                took.append(time.monotonic() - began)
            except grpc.aio.AioRpcError:
                took.append(float("inf"))
            await asyncio.sleep(every_s)
    return took
