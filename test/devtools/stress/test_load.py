"""Sustained load, overload, and memory over thousands of requests: `make soak`, and its short form.

Under load no request is lost or mixed up: with the fakes a text can only belong to its own audio, prompt and language,
with the demo checkpoints it must be the text that the same recording has alone. Overload is refused at once, and Health
does not wait. Memory, descriptors and children do not grow, and a build with a leak must be found.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from numpy.typing import NDArray

from devtools import procfs
from devtools.stress.client import (
    AUDIO,
    FULL,
    LOST,
    OK,
    ONE_CHUNK_S,
    Outcome,
    Request,
    Server,
    causes,
    noise_requests,
    statuses,
)
from devtools.stress.plan import Plan
from devtools.stress.profile import Profile
from devtools.stress.results import Results, quantile

pytestmark = pytest.mark.slow

_HEALTH_S, _REFUSAL_S = 0.1, 0.05
_CODES = {"": "", "en": "en", "de-DE": "de", "zh": "zh"}  # language of a request: what the recognizer gets
_OVERLOAD = 4  # times the capacity
_BOUND, _BATCH = 12, 4  # of the overloaded server: requests in flight, and decoded together
_STEPS, _STEP_S = 40, 0.005  # 0.2 s a request: at 20 requests a second the client is not the bottleneck
_SAMPLES, _WARM_UP = 40, 0.25  # of memory in a run, and the share of requests before the run


@pytest.mark.soak("load")
async def test_a_load_loses_nothing_and_mixes_nothing_up(profile: Profile, folder: Path, results: Results) -> None:
    """Every stream sends noise of its own, of all lengths, with and without times."""
    results.measure = "load held, by hash"
    with Server() as server:
        server.load_plan(Plan(steps=4, step_s=0.002))
        streams = [_noise_stream(folder, profile.seed, number) for number in range(profile.streams)]
        await _sustain(server, streams, profile.load_s, results)
    assert results["sent"].figures["exact"] >= 20


def _noise_stream(folder: Path, seed: int, number: int) -> list[Request]:
    chance = Random(f"{seed}/{number}")
    requests = []
    for times in (True, False) * 3:
        seconds = chance.choice((chance.uniform(0.05, 0.5), chance.uniform(0.5, 4), chance.uniform(4, ONE_CHUNK_S)))
        language, code = chance.choice(list(_CODES.items()))
        seeds, steps = [chance.getrandbits(48)], chance.randint(1, 8)
        (request,) = noise_requests(folder, seeds, seconds, steps, times=times, language=code)
        requests.append(replace(request, language=language))
    return requests


@pytest.mark.soak("load", is_long=True)
async def test_under_load_a_recording_has_the_text_that_it_has_alone(
    demo_server: Server, profile: Profile, results: Results
) -> None:
    """The demo's short recordings through run.sh."""
    results.measure = "load held, demo models"
    entries = [json.loads(line) for line in (AUDIO / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    short = [(AUDIO / entry["audio"], entry["text"]) for entry in entries if entry["audio"] != "long.flac"]
    alone = [await demo_server.transcribe(Request(*each, times=times)) for each in short for times in (False, True)]
    assert all(outcome.status == OK for outcome in alone), causes(alone)
    matching = sum(outcome.result.text == outcome.request.text for outcome in alone)
    results.check("texts as in the manifest", f"{matching} of {len(alone)}")
    requests = [replace(outcome.request, text=outcome.result.text) for outcome in alone]
    chance = Random(profile.seed)
    streams = [chance.sample(requests, len(requests)) for _ in range(profile.streams)]
    await _sustain(demo_server, streams, profile.load_s, results)


async def _sustain(server: Server, streams: Sequence[Sequence[Request]], seconds: float, results: Results) -> None:
    """Each stream sends its requests one after another, over and over; what was sent is waited for."""
    until = time.monotonic() + seconds
    outcomes: list[Outcome] = []

    async def send(requests: Sequence[Request]) -> None:
        for request in itertools.cycle(requests):
            if time.monotonic() > until:
                return
            outcomes.append(await server.transcribe(request))

    async with server.timed_health() as health_s:
        await asyncio.gather(*map(send, streams))
    exact = sum(outcome.is_exact for outcome in outcomes)
    refused = [outcome for outcome in outcomes if outcome.status not in (OK, LOST)]
    shown, took_s = f"{len(outcomes)} = {exact} exact + {statuses(refused)}", [outcome.took_s for outcome in outcomes]
    p50_s, p99_s = quantile(took_s, 0.5), quantile(took_s, 0.99)
    results.check("sent", shown, sent=len(outcomes), exact=exact, p50_s=p50_s, p99_s=p99_s)
    _check_lost_and_wrong(outcomes, results)
    results.none("refused", len(refused), causes(refused))
    results.at_most("Health meanwhile, p99", quantile(health_s, 0.99), _HEALTH_S, "s")


def _check_lost_and_wrong(outcomes: Sequence[Outcome], results: Results) -> None:
    lost = [outcome for outcome in outcomes if outcome.status == LOST]
    results.none("lost", len(lost), causes(lost))
    wrong = [outcome for outcome in outcomes if outcome.status == OK and not outcome.is_exact]
    texts = [f"{o.request.path.name}: {o.result.text[:60]!r} instead of {o.request.text[:60]!r}" for o in wrong[:3]]
    results.none("wrong", len(wrong), "; ".join(texts))


@pytest.mark.soak("overload")
async def test_an_overload_is_refused_and_nothing_else(profile: Profile, folder: Path, results: Results) -> None:
    """Requests arrive at four times the capacity, which is measured first."""
    results.measure = f"{_OVERLOAD} × overload"
    with Server(arguments=("--max-requests", str(_BOUND))) as server:
        server.load_plan(Plan(step_s=_STEP_S), f"batch_max_size:{_BATCH}")
        requests = itertools.cycle(noise_requests(folder, range(16), 1.0, _STEPS))
        async with server.connect() as stub:
            await server.transcribe_all(itertools.islice(requests, _BOUND), stub)  # the first requests start decoders
            began = time.monotonic()
            await server.transcribe_all(itertools.islice(requests, _BOUND), stub)
            rate = _BOUND / (time.monotonic() - began)
            async with server.timed_health() as health_s:
                began, tasks = time.monotonic(), []
                for number in range(round(profile.overload_s * rate * _OVERLOAD)):
                    await asyncio.sleep(max(began + number / (rate * _OVERLOAD) - time.monotonic(), 0))
                    tasks.append(asyncio.create_task(server.transcribe(next(requests), stub)))
                outcomes = await asyncio.gather(*tasks)
    shown, answered = f"{len(outcomes)} = {statuses(outcomes)}", sum(outcome.status == OK for outcome in outcomes)
    results.check("arrived", shown, sent=len(outcomes), rate=rate, answered=answered)
    _check_lost_and_wrong(outcomes, results)
    others = [outcome for outcome in outcomes if outcome.status not in (OK, FULL, LOST)]
    results.none("refused by another status", len(others), causes(others))
    refusals_s = [outcome.took_s for outcome in outcomes if outcome.status == FULL]
    results.at_most("refusal, p99", quantile(refusals_s, 0.99), _REFUSAL_S, "s")
    results.at_most("Health, p99", quantile(health_s, 0.99), _HEALTH_S, "s")
    assert "RESOURCE_EXHAUSTED" in results["arrived"].measured
    assert answered >= 8


@dataclass(frozen=True)
class Growth:
    """`slope_mib`: per 1000 requests. `descriptors`, `children`: how many more at the end than before."""

    slope_mib: float
    last_mib: float
    descriptors: int
    children: int
    inexact: int


@pytest.mark.soak("memory")
async def test_memory_does_not_grow_and_a_leak_is_found(profile: Profile, folder: Path, results: Results) -> None:
    results.measure = f"{profile.requests} requests"
    steady = await growth(Plan(steps=2), profile.requests, folder)
    note = f"holds {steady.last_mib:.0f} MiB at the end"
    results.at_most("memory per 1000, second half", steady.slope_mib, profile.growth_mib, "MiB", note)
    results.none("descriptors left", max(steady.descriptors, 0))
    results.none("children left", max(steady.children, 0))
    results.none("not exact", steady.inexact)
    leaking = await growth(Plan(steps=2, leaks=True), max(profile.requests // 4, 300), folder)
    shown, goal = f"{leaking.slope_mib:.0f} MiB", f"> {profile.growth_mib:g} MiB"
    results.check("a build that leaks, per 1000", shown, goal, leaking.slope_mib > profile.growth_mib)
    assert leaking.slope_mib > 60  # the samples alone are 122
    assert leaking.inexact == 0


async def growth(plan: Plan, count: int, folder: Path) -> Growth:
    """Over `count` requests with 125 KiB of samples each, after a warm-up."""
    with Server() as server:
        server.load_plan(plan)
        requests = itertools.cycle(
            [each for n in range(24) for each in noise_requests(folder, [n], 2.0, 2, times=n % 2 == 0)]
        )

        async def send(count: int) -> int:
            """Eight at once; the number of inexact replies."""
            left = iter(range(count))

            async def one_by_one() -> int:
                return sum([not (await server.transcribe(next(requests))).is_exact for _ in left])

            return sum(await asyncio.gather(*(one_by_one() for _ in range(8))))

        def count_open() -> NDArray[np.int64]:
            """Descriptors and children."""
            server.check_alive()
            return np.array([procfs.descriptors(server.pid), len(procfs.children(server.pid))])

        await send(round(count * _WARM_UP))
        before, each = count_open(), count // _SAMPLES
        resident, inexact = [], 0
        for _ in range(_SAMPLES):
            inexact += await send(each)
            resident.append(procfs.tree_memory(server.pid).resident)
        until = time.monotonic() + 5.0
        while (count_open() > before).any() and time.monotonic() < until:
            await asyncio.sleep(0.05)
        descriptors, children = map(int, count_open() - before)
        slope_mib = slope([each * n for n in range(1, _SAMPLES + 1)], resident) * 1000 / procfs.MIB
        return Growth(slope_mib, resident[-1] / procfs.MIB, descriptors, children, inexact)


def slope(requests: Sequence[int], resident: Sequence[int]) -> float:
    """Bytes per request, by least squares over the second half: caches fill once, which is no growth."""
    half = len(requests) // 2
    return float(np.polyfit(requests[half:], resident[half:], 1)[0])


def test_the_slope_is_of_the_second_half() -> None:
    done = list(range(40))
    held = [min(number, 20) * 1000 + max(number - 20, 0) * 7 for number in done]
    assert slope(done, held) == pytest.approx(7, rel=0.1)
