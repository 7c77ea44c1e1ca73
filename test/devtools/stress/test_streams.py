"""Files whose text comes in pieces, under load and with faults: `make soak ONLY=streams`, and its short form.

Whatever happens, a stream that ends with OK has deltas that are its final text, and the text of its own sound. After
each measure the golden request is exact.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from devtools.stress.client import AUDIO, EXACT, FULL, OK, Outcome, Request, Server, causes, noise_requests, statuses
from devtools.stress.plan import Fault, Plan, prompt_for
from devtools.stress.profile import Profile
from devtools.stress.results import Results, quantile
from devtools.stress.stream_client import stream_file

pytestmark = [pytest.mark.slow]

_BOUND, _ENDLESS, _FREE_S, _TIMEOUT_S = 16, 1_000_000, 1.0, 15.0
_STEPS, _STEP_S = 20, 0.003


@pytest.mark.soak("streams")
async def test_streams_under_load_lose_nothing_and_mix_nothing_up(
    profile: Profile, folder: Path, results: Results
) -> None:
    results.measure = "streams of files"
    outcomes = list[Outcome]()
    with Server() as server:
        server.load_plan(Plan(steps=4, step_s=0.002))
        until = time.monotonic() + profile.load_s / 2

        async def send(number: int) -> None:
            chance = Random(f"{profile.seed}/{number}")
            seeds = [chance.getrandbits(48) for _ in range(4)]
            requests = [r for seed in seeds for r in noise_requests(folder, [seed], chance.uniform(0.1, 6), 3)]
            for request in itertools.cycle(requests):
                if time.monotonic() > until:
                    return
                outcomes.append(await stream_file(server, request, read_every_s=chance.choice((0.0, 0.0, 0.05))))

        await asyncio.gather(*map(send, range(profile.streams)))
        golden = await server.golden()
    inexact = [outcome for outcome in outcomes if not outcome.is_exact]
    results.check("sent", f"{len(outcomes)} = {statuses(outcomes)}", sent=len(outcomes))
    results.none("lost, torn, wrong or refused", len(inexact), causes(inexact))
    results.check("golden request", golden, EXACT, golden == EXACT)
    assert len(outcomes) >= profile.streams


@pytest.mark.soak("streams")
async def test_a_cancelled_stream_frees_its_slot(profile: Profile, folder: Path, results: Results) -> None:
    results.measure = "streams of files"
    chance = Random(profile.seed)
    with Server(arguments=("--max-requests", str(_BOUND))) as server:
        server.load_plan(Plan(step_s=0.01), "batch_max_size:2")
        endless = noise_requests(folder, range(_BOUND), 1.0, _ENDLESS)
        (probe,) = noise_requests(folder, [999], 0.2, steps=1)
        await server.transcribe_all([probe] * _BOUND)  # the first requests start decoders
        took_s = []
        for _ in range(profile.cancels):
            async with server.connect() as stub:
                tasks = [asyncio.create_task(stream_file(server, request, stub)) for request in endless]
                await asyncio.sleep(chance.uniform(0.02, 0.5))
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            began = time.monotonic()
            while (await server.transcribe(probe, timeout_s=_TIMEOUT_S)).status == FULL:
                assert time.monotonic() - began < _TIMEOUT_S
                await asyncio.sleep(0.005)
            took_s.append(time.monotonic() - began)
        golden = await server.golden()
    results.at_most("cancel → free slot, p99", quantile(took_s, 0.99), _FREE_S, "s", f"{len(took_s)} times")
    results.check("golden request after cancels", golden, EXACT, golden == EXACT)


@dataclass(frozen=True)
class StreamFault:
    """`status`: of the stream with the marked sound, whose text must be exact with OK."""

    name: str
    fault: Fault
    status: str = OK


FAULTS = (
    StreamFault("stream: out of memory at the 3rd step, once", Fault("step", "out of memory", at=3)),
    StreamFault("stream: always too large for a step", Fault("step", "out of memory"), FULL),
    StreamFault("stream: fails every batch it is in", Fault("step", "exception"), "INTERNAL"),
    StreamFault("stream: a text that no reply can hold", Fault("step", "text that no reply can hold"), "INTERNAL"),
    StreamFault("stream: a step of 2 s", Fault("step", "slow", at=4)),
)


@pytest.mark.soak("streams")
async def test_a_fault_in_a_step_touches_its_own_stream_alone(folder: Path, results: Results) -> None:
    with Server() as server:
        for fault in FAULTS:
            server.load_plan(Plan(step_s=_STEP_S, faults=(fault.fault,)), "batch_max_size:8")
            (marked,) = noise_requests(folder, [0], 2.0, _STEPS, marked=True)
            others = noise_requests(folder, range(1, 7), 2.0, _STEPS)
            victim, *bystanders = await asyncio.gather(*(stream_file(server, each) for each in (marked, *others)))
            exact = sum(outcome.is_exact for outcome in bystanders)
            is_right = victim.status == fault.status and (victim.is_exact or fault.status != OK)
            shown = f"victim {victim.status}{' exact' * victim.is_exact}; bystanders {exact} of {len(others)} exact"
            wanted = f"{fault.status}{' exact' * (fault.status == OK)}; all exact"
            is_met = is_right and exact == len(others) and "connection" not in victim.details
            results.fault(fault.name, shown, wanted, is_met, await server.golden(), causes(bystanders))


@pytest.mark.soak("streams", is_long=True)
async def test_a_slow_reader_keeps_nobody_waiting(demo_server: Server, results: Results) -> None:
    """Three minutes of speech for a client that reads a message every 0.2 s, beside requests of others."""
    results.measure = "streams of files, demo models"
    long, short = Request(AUDIO / "long.flac"), Request(AUDIO / "chinese.wav")
    alone, fast = await demo_server.transcribe(long), await demo_server.transcribe(short)
    slow = asyncio.create_task(stream_file(demo_server, long, read_every_s=0.2))
    took_s = []
    while not slow.done():
        took_s.append((await demo_server.transcribe(short)).took_s)
    read = await slow
    results.check("a slow reader's text", read.status, f"{OK}, as alone", read.status == OK, read.details)
    assert read.result.text == alone.result.text
    shown = f"{quantile(took_s, 0.5):.2f} s, median of {len(took_s)}; alone {fast.took_s:.2f} s"
    results.check("a short recording meanwhile", shown, took_s=took_s)


def test_the_prompt_of_an_endless_stream_is_one() -> None:
    assert Plan().steps_of(prompt_for(_ENDLESS, 1)) == _ENDLESS
