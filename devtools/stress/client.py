"""The server under test and its clients: what is sent, what comes back, and how long it takes.

Recordings are 32-bit float WAVs at 16 kHz of at most one chunk: the samples arrive bit for bit, so the text is known.

A call ends with a reply, with a status, or LOST: no reply in time, or a broken connection, as UNAVAILABLE says.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import numpy as np
import soundfile

from backend.audio.waveform import SAMPLE_RATE, Samples
from backend.wire import backend_pb2 as pb
from backend.wire import backend_pb2_grpc
from devtools.procfs import INSPECTABLE
from devtools.server_process import DEMO_ALIGNER, DEMO_MODEL, ROOT, RUN_SH, ServerProcess
from devtools.stress.fakes import MARK, text_of
from devtools.stress.plan import Plan, prompt_for

AUDIO = ROOT / "test/audio"
ONE_CHUNK_S = 14.0  # below the longest passage of the demo models and of the fakes
OK, CANCELLED, LOST, FULL, EXACT = "OK", "CANCELLED", "lost", "RESOURCE_EXHAUSTED", "exact"
Stub: TypeAlias = backend_pb2_grpc.BackendStub
RUN = (*RUN_SH, str(ROOT / "run.sh"))
FAULTY_SERVER = (sys.executable, "-m", "devtools.stress.faulty_server")
_LOST = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNKNOWN)
_LOAD_S, _TIMEOUT_S = 120.0, 60.0
_CHANNEL = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))  # or channels share a connection


@dataclass(frozen=True)
class Request:
    """A recording to transcribe and the text that must come back."""

    path: Path
    text: str = ""
    prompt: str = ""
    language: str = ""
    times: bool = False

    @property
    def message(self) -> pb.TranscriptRequest:
        words = ["word"] if self.times else []
        return pb.TranscriptRequest(
            dst=str(self.path), prompt=self.prompt, language=self.language, diarize=True, timestamp_granularities=words
        )


@dataclass(frozen=True)
class Outcome:
    """`status`: the name of a gRPC code, or LOST."""

    request: Request
    status: str
    took_s: float = 0.0
    result: pb.TranscriptResult = field(default_factory=pb.TranscriptResult)
    warning: str = ""
    details: str = ""

    @property
    def is_exact(self) -> bool:
        return self.status == OK and self.result.text == self.request.text and not contract_violations(self.result)


class Server(ServerProcess):
    """faulty_server.py by default. Leaving the block kills it."""

    def __init__(
        self,
        command: Sequence[str] = FAULTY_SERVER,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(command, arguments, environment={**INSPECTABLE, **(environment or {})}, **options)

    def __enter__(self) -> Server:
        super().__enter__()
        return self

    def close(self, grace_s: float = 0.0) -> None:
        super().close(grace_s)

    def load_plan(self, plan: Plan, *options: str, timeout_s: float = _LOAD_S) -> None:
        """Raises ServerFailed. No voice activity detection: all of the noise is to reach the recognizer."""
        named = ["vad:off", "forced_aligner:shares", *options]
        self.load(pb.ModelOptions(Model=plan.as_name(), Options=named), timeout_s)

    def load_demo(self) -> None:
        named, threads = [f"forced_aligner:{DEMO_ALIGNER}"], os.cpu_count() or 1
        self.load(pb.ModelOptions(Model="demo", ModelFile=str(DEMO_MODEL), Options=named, Threads=threads), _LOAD_S)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Stub]:
        """A connection of its own."""
        async with grpc.aio.insecure_channel(self.address, options=_CHANNEL) as channel:
            yield Stub(channel)  # type: ignore[no-untyped-call] # generated without types

    async def transcribe(self, request: Request, stub: Stub | None = None, timeout_s: float = _TIMEOUT_S) -> Outcome:
        """Over a connection of its own without `stub`. Never raises for what the server or the connection does."""
        async with nullcontext(stub) if stub else self.connect() as used:
            began = time.monotonic()
            call = used.AudioTranscription(request.message, timeout=timeout_s)
            try:
                result = await call
                trailing = dict(await call.trailing_metadata() or ())
            except grpc.aio.AioRpcError as error:
                status = LOST if error.code() in _LOST else error.code().name
                details = f"{error.code().name}: {error.details()}"
                return Outcome(request, status, time.monotonic() - began, details=details)
            return Outcome(request, OK, time.monotonic() - began, result, str(trailing.get("x-asr-warning", "")))

    async def transcribe_all(
        self, requests: Iterable[Request], stub: Stub | None = None, timeout_s: float = _TIMEOUT_S
    ) -> list[Outcome]:
        """All at once."""
        return await asyncio.gather(*(self.transcribe(request, stub, timeout_s) for request in requests))

    async def golden(self) -> str:
        """EXACT if the server still transcribes a plain request, after a fault say; else `NOT EXACT`."""
        with tempfile.TemporaryDirectory(prefix="stress-") as folder:
            (request,) = noise_requests(Path(folder), [99], 1.5, steps=2)
            is_exact = self.is_alive and (await self.transcribe(request, timeout_s=10.0)).is_exact
        return EXACT if is_exact else "NOT EXACT"

    @asynccontextmanager
    async def timed_health(self) -> AsyncIterator[list[float]]:
        """Calls Health every 20 ms during the block; seconds of each call, inf for a failed one."""
        took_s: list[float] = []
        done = asyncio.Event()

        async def watch() -> None:
            async with self.connect() as stub:
                while not done.is_set():
                    began = time.monotonic()
                    try:
                        await stub.Health(pb.HealthMessage(), timeout=5.0)
                        took_s.append(time.monotonic() - began)
                    except grpc.aio.AioRpcError:
                        took_s.append(float("inf"))
                    await asyncio.sleep(0.02)

        task = asyncio.create_task(watch())
        try:
            yield took_s
        finally:
            done.set()
            await task


def noise(seed: int, seconds: float, *, marked: bool = False) -> Samples:
    """The same samples for the same seed; shape (n,), within ±0.5 except for the mark."""
    samples = np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * SAMPLE_RATE)).astype(np.float32)
    if marked:
        samples[0] = MARK
    return samples


def long_sound(path: Path, seconds: float, level: float = 0.0) -> Path:
    """Writes FLAC of whole minutes: silence, which compresses to nothing, or one second of noise, repeated."""
    if not path.exists():
        second = (np.random.default_rng(1).uniform(-level, level, SAMPLE_RATE) * 32767).astype(np.int16)
        with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1) as file:
            for _ in range(round(seconds / 60)):
                file.write(np.tile(second, 60))
    return path


def noise_requests(folder: Path, seeds: Iterable[int], seconds: float, steps: int, *, times: bool = False,
                   marked: bool = False, language: str = "") -> list[Request]:  # fmt: skip
    """One recording of at most one chunk for each seed, which no other request has."""
    requests = []
    for seed in seeds:
        samples, prompt = noise(seed, seconds, marked=marked), prompt_for(steps, seed)
        path = folder / f"{seed}-{seconds:g}{'m' * marked}.wav"
        soundfile.write(path, samples, SAMPLE_RATE, subtype="FLOAT")
        requests.append(Request(path, text_of(samples, prompt, language or None), prompt, language, times))
    return requests


def contract_violations(result: pb.TranscriptResult) -> list[str]:
    """What the contract allows in no reply, whatever the recording."""
    last_ns = result.duration * 1e9 * (1 + 1e-6) + 1e9 / SAMPLE_RATE
    found, position, before = [], 0, 0
    if bool(result.text) != bool(result.segments):
        found.append("text without segments, or segments without text")
    for number, segment in enumerate(result.segments):
        if segment.id != number or not segment.tokens:
            found.append("a segment without its number or tokens")
        if not before <= segment.start < segment.end <= last_ns:
            found.append("a segment's times are out of order or outside the recording")
        at = result.text.find(segment.text, position)
        if at < 0:
            found.append("a segment that is no slice of the text")
        position, before = max(at, position) + len(segment.text), segment.end
    return found


def statuses(outcomes: Iterable[Any]) -> str:
    """`8 OK, 1 INTERNAL`: of whatever has a `status`."""
    counts = Counter(outcome.status for outcome in outcomes)
    return ", ".join(f"{count} {status}" for status, count in counts.most_common()) or "none"


def causes(outcomes: Iterable[Outcome]) -> str:
    return "; ".join(sorted({outcome.details for outcome in outcomes}))


def exact_of(outcomes: Sequence[Outcome]) -> str:
    return f"{sum(outcome.is_exact for outcome in outcomes)} of {len(outcomes)} exact"
