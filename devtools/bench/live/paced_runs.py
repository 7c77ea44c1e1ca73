"""Paced runs against a loaded server, and what is read from them. Nothing here knows a goal."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import grpc
import numpy as np
from numpy.typing import NDArray

from backend.wire import backend_pb2 as pb
from backend.wire import backend_pb2_grpc as rpc
from devtools.bench.live.sounds import Speech
from devtools.bench.measurement import Failed
from devtools.bench.system import Server
from devtools.eval.live.word_lag import Arrival, of_deltas
from devtools.live.paced_client import UNLIMITED, LiveCall, LiveRun, speak, timed_messages
from devtools.procfs import MIB, cpu_s, memory

_SAMPLE_S, _HEALTH_S = 1.0, 0.02
T = TypeVar("T")


class Sample(NamedTuple):
    """Of the server's process."""

    at_s: float
    cpu_s: float
    resident_mib: float


def connected(server: Server, question: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
    """Asks `question` with a stub of its own."""

    async def ask() -> T:
        async with grpc.aio.insecure_channel(server.address, options=UNLIMITED) as channel:
            return await question(rpc.BackendStub(channel))  # type: ignore[no-untyped-call]

    return asyncio.run(ask())


async def say_all(stub: Any, speeches: Sequence[Speech]) -> list[LiveRun]:
    """All at once. Raises Failed where one did not end with OK and the text of its deltas."""
    sounds = [timed_messages(each.samples) for each in speeches]
    runs = await asyncio.gather(*(speak(stub, sound) for sound in sounds))
    for run in runs:
        if run.failure:
            raise Failed(f"a stream ended with {run.failure}")
    return list(runs)


def arrivals(run: LiveRun, speech: Speech) -> list[Arrival]:
    return of_deltas([(event.at_s, event.delta) for event in run.events], speech.words, speech.language)


def utterance_delays(run: LiveRun, speech: Speech) -> tuple[list[float], list[float]]:
    """Of each utterance: from its first word's start to its first delta, and from its last word's end to its last."""
    at_s = {arrival.number: arrival.at_s for arrival in arrivals(run, speech)}
    firsts, lasts = [], []
    for first, last in speech.utterances:
        shown = [at_s[number] for number in range(first, last + 1) if number in at_s]
        if shown:
            firsts.append(min(shown) - speech.words[first].start_s)
        if last in at_s:
            lasts.append(at_s[last] - speech.words[last].end_s)
    return firsts, lasts


def message_rates(run: LiveRun) -> tuple[float, float]:
    """Messages with content in a second of the run, and the most of them in any 300 ms."""
    at_s = [event.at_s for event in run.events]
    most = max((sum(0 <= other - each < 0.3 for other in at_s) for each in at_s), default=0)
    return len(at_s) / max(run.closed_s, 1e-9), float(most)


def flush_s(server: Server, samples: NDArray[np.float32]) -> float:
    """From the half-close right behind the sound to the final result; inf where none came."""
    return connected(server, lambda stub: speak(stub, timed_messages(samples))).flush_s


async def ready_ms(stub: Any, times: int) -> list[float]:
    """Of streams that are opened one after the other and say nothing."""
    found = []
    for _ in range(times):
        call = LiveCall(stub)
        found.append(1000 * await call.open())
        await call.half_close()
        async for _reply in call.replies():
            pass
    return found


@asynccontextmanager
async def sampled(server: Server) -> AsyncIterator[list[Sample]]:
    """Once a second during the block, and at its end."""
    samples: list[Sample] = []
    began = time.perf_counter()

    def sample() -> None:
        resident = memory(server.pid).resident / MIB
        samples.append(Sample(time.perf_counter() - began, cpu_s(server.pid), resident))

    async def watch() -> None:
        for number in itertools.count():
            sample()
            await asyncio.sleep(max(began + (number + 1) * _SAMPLE_S - time.perf_counter(), 0.0))

    task = asyncio.ensure_future(watch())
    try:
        yield samples
    finally:
        task.cancel()
        sample()


@asynccontextmanager
async def beside(stub: Any, files: Sequence[Path]) -> AsyncIterator[list[float]]:
    """Each file over and over, all at once, during the block; the second at which each reply came."""
    done: list[float] = []
    began = time.perf_counter()

    async def send(path: Path) -> None:
        while True:
            await stub.AudioTranscription(pb.TranscriptRequest(dst=str(path), diarize=True))
            done.append(time.perf_counter() - began)

    tasks = [asyncio.ensure_future(send(path)) for path in files]
    try:
        yield done
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def timed_health(stub: Any) -> AsyncIterator[list[float]]:
    """Seconds of Health, asked every 20 ms during the block."""
    took_s: list[float] = []

    async def watch() -> None:
        while True:
            began = time.perf_counter()
            await stub.Health(pb.HealthMessage())
            took_s.append(time.perf_counter() - began)
            await asyncio.sleep(_HEALTH_S)

    task = asyncio.ensure_future(watch())
    try:
        yield took_s
    finally:
        task.cancel()


def cpu_between(samples: Sequence[Sample], first_s: float, last_s: float) -> float:
    """Seconds of processor time from the sample at `first_s` to that at `last_s`."""
    nearest = [min(samples, key=lambda sample: abs(sample.at_s - at_s)) for at_s in (first_s, last_s)]
    return nearest[1].cpu_s - nearest[0].cpu_s
