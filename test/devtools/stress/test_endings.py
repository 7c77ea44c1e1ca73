"""Early ends, for `make soak` and in short: cancellation, SIGTERM under load, a gateway that is killed.

Cancellation is measured from outside, so it holds for any implementation: the server is filled with requests in one
stage, all of them are cancelled at a random moment, and the next request must be answered. After SIGTERM the server
loses no request that could finish. A gateway that is killed at any moment of the server's start leaves no server.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

import grpc
import numpy as np
import pytest
import soundfile

from backend.audio.waveform import SAMPLE_RATE
from backend.wire import backend_pb2 as pb
from devtools import procfs
from devtools.server_process import ROOT, free_port
from devtools.stress.client import (
    AUDIO,
    FULL,
    LOST,
    OK,
    Request,
    Server,
    Stub,
    causes,
    long_sound,
    noise_requests,
    statuses,
)
from devtools.stress.plan import Plan, prompt_for
from devtools.stress.profile import SHORT, Profile
from devtools.stress.results import Results, quantile

pytestmark = pytest.mark.slow

_FREE_S, _EXIT_S, _ORPHAN_S = 1.0, 12.5, 3.0
_BOUND = 16  # requests in flight
_ENDLESS = 1_000_000  # decode steps: longer than any test
_TIMEOUT_S = 15.0
_HOPELESS = 3  # in a row ten times too late: more of them say nothing new
_GATEWAY = """
import subprocess, sys, time
quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
print(subprocess.Popen(sys.argv[1:], **quiet).pid, flush=True)
time.sleep(600)
"""


@dataclass(frozen=True)
class Stage:
    """`requests` stand in the stage at any moment of `window_s`."""

    name: str
    plan: Plan
    batch: int
    requests: Callable[[Path], list[Request]]
    window_s: tuple[float, float]


def _recognized(count: int, folder: Path) -> list[Request]:
    return noise_requests(folder, range(count), 2.0, _ENDLESS)


def _decoded(folder: Path) -> list[Request]:
    """An hour of FLAC takes seconds to decode; enough requests to fill every decoder."""
    path = long_sound(folder / "long.flac", 3600.0, level=0.3)
    return [Request(path, prompt=prompt_for(_ENDLESS, number)) for number in range(_BOUND)]


def _aligned(folder: Path) -> list[Request]:
    """Recognized at once, then forty passages to align."""
    path = folder / "passages.wav"
    soundfile.write(path, np.random.default_rng(1).uniform(-0.5, 0.5, 600 * SAMPLE_RATE), SAMPLE_RATE)
    return [Request(path, prompt=prompt_for(1, number), times=True) for number in range(2)]


STAGES = (
    Stage("recognise", Plan(step_s=0.01), 2, partial(_recognized, 2), (0.05, 0.5)),
    Stage("queue", Plan(step_s=0.01), 2, partial(_recognized, _BOUND), (0.05, 0.5)),
    Stage("decode", Plan(), 2, _decoded, (0.1, 1.0)),
    Stage("align", Plan(step_s=0.0005, passage_s=0.1), 4, _aligned, (1.0, 2.0)),
)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """For all stages: the first requests of a server wait until its decoders have started."""
    with Server(arguments=("--max-requests", str(_BOUND))) as server:
        yield server


@pytest.mark.soak("cancel")
@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
async def test_a_cancelled_request_frees_its_slot(
    stage: Stage, server: Server, profile: Profile, folder: Path, results: Results
) -> None:
    server.load_plan(stage.plan, f"batch_max_size:{stage.batch}")
    (probe,) = noise_requests(folder, [999], 0.2, steps=1)
    requests = stage.requests(folder)
    await _measure_cancels(stage.name, server, requests, probe, 0.0, stage.window_s, profile, results)


@pytest.mark.soak("cancel", is_long=True)
async def test_a_request_cancelled_at_any_moment_frees_its_slot(
    demo_server: Server, profile: Profile, results: Results
) -> None:
    """Three minutes of speech with word times, through the real models."""
    long, probe = Request(AUDIO / "long.flac", times=True), Request(AUDIO / "chinese.wav")
    whole, *alone = [await demo_server.transcribe(request) for request in (long, probe, probe, probe)]
    assert {outcome.status for outcome in (whole, *alone)} == {OK}, causes([whole, *alone])
    alone_s, window_s = min(outcome.took_s for outcome in alone), (0.0, whole.took_s)
    await _measure_cancels("anywhere, demo models", demo_server, [long] * 2, probe, alone_s, window_s, profile, results)


async def _measure_cancels(name: str, server: Server, requests: Sequence[Request], probe: Request, alone_s: float,
                           window_s: tuple[float, float], profile: Profile, results: Results) -> None:  # fmt: skip
    chance = Random(f"{profile.seed}/{name}")
    took_s: list[float] = []
    while len(took_s) < profile.cancels and min([0.0] * _HOPELESS + took_s[-_HOPELESS:]) < 10 * _FREE_S:
        took_s.append(await _free_after_s(server, requests, probe, alone_s, chance.uniform(*window_s)))
    results.measure = "cancel → free slot"
    note = f"{len(took_s)} times: median {quantile(took_s, 0.5):.3f} s, longest {max(took_s):.3f} s"
    results.at_most(f"{name}, p99", quantile(took_s, 0.99), _FREE_S, "s", note)
    assert max(took_s) < 10 * _FREE_S  # also on a busy machine


async def _free_after_s(server: Server, requests: Sequence[Request], probe: Request, alone_s: float,
                        cancel_after_s: float) -> float:  # fmt: skip
    """Seconds from the cancellation of the requests until `probe` was answered, less what the probe takes alone."""
    async with server.connect() as stub, server.connect() as other:
        tasks = [asyncio.create_task(server.transcribe(request, stub)) for request in requests]
        await asyncio.sleep(cancel_after_s)
        for task in tasks:
            task.cancel()
        began = time.monotonic()
        await asyncio.gather(*tasks, return_exceptions=True)
        while (outcome := await server.transcribe(probe, other, _TIMEOUT_S)).status == FULL:
            if time.monotonic() - began > _TIMEOUT_S:
                break
            await asyncio.sleep(0.005)
        return max(time.monotonic() - began - alone_s, 0.0) if outcome.status == OK else _TIMEOUT_S


@pytest.mark.soak("stop", is_long=True)
async def test_sigterm_loses_nothing_of_the_demo_models(demo_server: Server, results: Results) -> None:
    """Many short recordings and one of minutes in flight."""
    results.measure = "SIGTERM, demo models"
    short = [Request(AUDIO / name, times=True) for name in ("demo.wav", "chinese.wav", "left_out.wav")]
    await _stop(demo_server, [*short * 3, Request(AUDIO / "long.flac")], [], results)


@pytest.mark.soak("stop")
async def test_sigterm_loses_nothing_that_can_finish(profile: Profile, folder: Path, results: Results) -> None:
    """Requests of 1.5 s beside some without an end, which must not take the others with them."""
    results.measure = "SIGTERM, some never end"
    with Server() as server:
        server.load_plan(Plan(step_s=0.01))
        endless = noise_requests(folder, range(100, 100 + profile.endless), 1.0, _ENDLESS)
        await _stop(server, noise_requests(folder, range(6), 1.0, 150), endless, results)
    assert endless or results["exit"].figures["value"] < 10  # the grace: nothing was left to wait for


async def _stop(server: Server, finite: list[Request], endless: list[Request], results: Results) -> None:
    async with server.connect() as stub:
        tasks = [asyncio.create_task(server.transcribe(request, stub)) for request in (*finite, *endless)]
        while server.stub.Status(pb.HealthMessage(), timeout=5).state != pb.StatusResponse.BUSY:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.3)
        children, began = procfs.children(server.pid), time.monotonic()
        server.signal(signal.SIGTERM)
        code = await asyncio.to_thread(server.wait, 20.0)
        exit_s = None if code is None else time.monotonic() - began
        if code is None:
            server.signal(signal.SIGKILL)
        outcomes = await asyncio.gather(*tasks)
    results.at_most("exit", exit_s, _EXIT_S, "s")
    results.check("exit code", str(code), "0", code == 0)
    lost = sum(outcome.status != OK or not outcome.result.text for outcome in outcomes[: len(finite)])
    results.none(f"lost of {len(finite)} that could finish", lost)
    if others := outcomes[len(finite) :]:
        have_status = all(outcome.status not in (OK, LOST) for outcome in others)
        results.check("the others", statuses(others), "a status", have_status, causes(others))
    results.none("children left", len(procfs.wait_until_ended(children, 1.0)))


@pytest.mark.soak("orphans")
def test_no_server_outlives_its_gateway(profile: Profile, results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    results.measure = "orphans"
    if profile == SHORT:
        monkeypatch.setenv("LOCALAI_BACKEND_PARENT_WATCH_INTERVAL", "100ms")
    seconds = outlived_s(profile.kills, profile.seed)
    shown = f"{max(seconds):.2f} s at most, {len(seconds)} kills"
    results.check("gone after", shown, f"≤ {_ORPHAN_S:g} s", max(seconds) <= _ORPHAN_S, seconds=seconds)


def moments(kills: int, seed: int = 0) -> list[tuple[float, bool]]:
    """When to kill, in seconds after the start, or with True after the first Health, while torch is imported."""
    chance = Random(seed)
    return [
        [(chance.uniform(0, 0.01), False), (chance.uniform(0, 0.5), False), (chance.uniform(0, 3), True)][number % 3]
        for number in range(kills)
    ]


def outlived_s(
    kills: int, seed: int = 0, command: Sequence[str | Path] = (ROOT / "run.sh",), timeout_s: float = 10.0
) -> list[float]:
    """Seconds by which the server outlived its gateway, for each kill; inf for a server that had to be killed."""
    found = []
    for after_s, is_up in moments(kills, seed):
        address = f"127.0.0.1:{free_port()}"
        started = [sys.executable, "-ESc", _GATEWAY, *map(str, command), "--addr", address]
        with subprocess.Popen(started, stdout=subprocess.PIPE, text=True, start_new_session=True) as gateway:
            assert gateway.stdout is not None
            pid = int(gateway.stdout.readline())
            if is_up:
                with grpc.insecure_channel(address) as channel:
                    Stub(channel).Health(pb.HealthMessage(), wait_for_ready=True, timeout=60)
            time.sleep(after_s)
            gateway.kill()
            gateway.wait()
            began = time.monotonic()
            if left := procfs.wait_until_ended([pid], timeout_s):
                os.kill(pid, signal.SIGKILL)
            found.append(math.inf if left else time.monotonic() - began)
    return found


def test_a_server_that_outlives_its_gateway_is_seen() -> None:
    lived = outlived_s(kills=1, command=("bash", "-c", "sleep 60"), timeout_s=0.5)
    assert lived == [float("inf")]


def test_the_moments_reach_from_the_first_to_the_imports() -> None:
    chosen = moments(30)
    assert min(chosen)[0] < 0.005
    assert sum(is_up for _, is_up in chosen) == 10
    assert chosen == moments(30)
