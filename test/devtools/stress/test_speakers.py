"""Many speakers at once, and ends and faults in the middle of speech: `make soak ONLY=live`, and its short form.

The fakes' text is a hash of the samples of the whole window: without voice activity detection that is the sound from
its first sample to its last, so a text can only belong to its own sound, however it was cut into messages. After each
measure the golden request is exact.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import sys
import time
from asyncio.subprocess import PIPE
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import pytest

from backend.audio.waveform import SAMPLE_RATE
from devtools.eval.manifest import DEMO_SET, read
from devtools.live.paced_client import LiveRun, audio_message
from devtools.server_process import ROOT
from devtools.stress.client import EXACT, FULL, OK, Outcome, Server, causes, exact_of, noise_requests, statuses
from devtools.stress.plan import Fault, Plan
from devtools.stress.profile import Profile
from devtools.stress.results import Results, quantile
from devtools.stress.stream_client import (
    Speaker,
    free_after_s,
    open_streams,
    outcome_of,
    say,
    speaker,
    uneven_messages,
)

pytestmark = [pytest.mark.slow]

_HEALTH_S, _FREE_S, _EXIT_S, _TIMEOUT_S = 0.1, 1.0, 12.5, 15.0
_STEPS, _STEP_S = 4, 0.003
_CANCELLED_AT_ONCE = 4
_ORPHAN = """
import asyncio, sys, grpc, numpy as np
from backend.wire import backend_pb2_grpc as rpc
from devtools.live.paced_client import LiveCall
async def main():
    async with grpc.aio.insecure_channel(sys.argv[1]) as channel:
        call = LiveCall(rpc.BackendStub(channel))
        await call.open()
        print("open", flush=True)
        while True:
            await call.send(np.full(4800, 0.1, np.float32))
            await asyncio.sleep(0.3)
asyncio.run(main())
"""


@pytest.mark.soak("live")
async def test_many_speakers_get_their_own_text(profile: Profile, results: Results) -> None:
    results.measure = f"{profile.streams} speakers, by hash"
    outcomes = list[Outcome]()

    async def speak_on(server: Server, number: int, until: float) -> None:
        chance = Random(f"{profile.seed}/{number}")
        while time.monotonic() < until:
            each = speaker(chance.getrandbits(48), chance.uniform(0.1, 3.0), chance.randint(1, 6))
            plan = uneven_messages(each.samples.size, chance) if chance.random() < 0.5 else None
            outcomes.append(await say(server, each, plan=plan))

    with Server() as server:
        server.load_plan(Plan(steps=4, step_s=0.002))
        until = time.monotonic() + profile.load_s / 2
        async with server.timed_health() as health_s:
            await asyncio.gather(*(speak_on(server, number, until) for number in range(profile.streams)))
        golden = await server.golden()
    inexact = [outcome for outcome in outcomes if not outcome.is_exact]
    results.check("spoken", f"{len(outcomes)} = {statuses(outcomes)}", sent=len(outcomes))
    results.none("lost, torn, wrong or refused", len(inexact), causes(inexact))
    results.at_most("Health meanwhile, p99", quantile(health_s, 0.99), _HEALTH_S, "s")
    results.check("golden request", golden, EXACT, golden == EXACT)
    assert len(outcomes) >= profile.streams


@pytest.mark.soak("live", is_long=True)
async def test_many_speakers_of_the_demo_are_shown_what_they_say(
    demo_server: Server, profile: Profile, results: Results
) -> None:
    results.measure = f"{profile.streams} speakers, demo models"
    entries = [entry for entry in read(DEMO_SET) if entry.id != "long"]
    chosen = list(itertools.islice(itertools.cycle(entries), profile.streams))
    speakers = [Speaker(entry.samples(), entry.text) for entry in chosen]
    outcomes = await asyncio.gather(*(say(demo_server, each) for each in speakers))
    matching = sum(outcome.result.text == outcome.request.text for outcome in outcomes)
    results.check("texts as in the manifest", f"{matching} of {len(outcomes)}")
    failed = [outcome for outcome in outcomes if outcome.status != OK]
    results.none("lost or torn", len(failed), causes(failed))
    assert matching >= len(outcomes) // 2


@pytest.mark.soak("live")
async def test_speakers_who_leave_free_their_places(profile: Profile, results: Results) -> None:
    """Cancelled at any moment, and killed with their whole process."""
    results.measure = "speakers who leave"
    chance = Random(profile.seed)
    probe = speaker(99, 0.1, 1)
    with Server() as server:
        server.load_plan(Plan(step_s=_STEP_S), f"live_max_streams:{_CANCELLED_AT_ONCE}")
        cancelled_s = []
        for _ in range(profile.cancels):
            async with server.connect() as stub:
                calls = await open_streams(stub, [speaker(n, 3.0, 3) for n in range(_CANCELLED_AT_ONCE)])
                for call in calls:
                    await call.send(speaker(1, 1.5, 3).samples)
                await asyncio.sleep(chance.uniform(0.0, 0.3))
                assert await free_after_s(server, probe, 0.05) == 0.05  # or there would be nothing to free
                for call in calls:
                    call.cancel()
                cancelled_s.append(await free_after_s(server, probe, _TIMEOUT_S))
        orphaned_s = [await _orphaned_s(server, probe) for _ in range(min(profile.kills // 3, 3))]
        golden = await server.golden()
    results.at_most("cancel → free place, p99", quantile(cancelled_s, 0.99), _FREE_S, "s", f"{len(cancelled_s)} times")
    results.at_most("killed → free place, most", max(orphaned_s), _FREE_S, "s", f"{len(orphaned_s)} times")
    results.check("golden request", golden, EXACT, golden == EXACT)
    assert max(*cancelled_s, *orphaned_s) < _TIMEOUT_S


async def _orphaned_s(server: Server, probe: Speaker) -> float:
    """All places are taken by clients that are killed while they speak."""
    started = [
        asyncio.create_subprocess_exec(sys.executable, "-c", _ORPHAN, server.address, stdout=PIPE, cwd=ROOT)
        for _ in range(_CANCELLED_AT_ONCE)
    ]
    clients = await asyncio.gather(*started)
    for client in clients:
        assert client.stdout is not None
        assert (await client.stdout.readline()).strip() == b"open"
    for client in clients:
        client.kill()
        await client.wait()
    return await free_after_s(server, probe, _TIMEOUT_S)


@dataclass(frozen=True)
class LiveFault:
    """`status`: of the speaker whose first sample is marked, whose text must be exact with OK."""

    name: str
    fault: Fault
    status: str = OK


FAULTS = (
    LiveFault("speaker: out of memory in a step, once", Fault("step", "out of memory", once=True)),
    LiveFault("speaker: always too large for a step", Fault("step", "out of memory"), FULL),
    LiveFault("speaker: an exception in a step, once", Fault("step", "exception", once=True)),
    LiveFault("speaker: fails every batch it is in", Fault("step", "exception"), "INTERNAL"),
    LiveFault("speaker: cannot enter a batch", Fault("add", "exception"), "INTERNAL"),
    LiveFault("speaker: a text that no reply can hold", Fault("step", "text that no reply can hold"), "INTERNAL"),
    LiveFault("speaker: a step of 2 s", Fault("step", "slow", once=True)),
)


@pytest.mark.soak("live")
async def test_a_fault_in_a_step_touches_its_own_speaker_alone(folder: Path, results: Results) -> None:
    """Beside the victim: three other speakers, and three files."""
    with Server() as server:
        for fault in FAULTS:
            server.load_plan(Plan(step_s=_STEP_S, faults=(fault.fault,)), "batch_max_size:8")
            marked = speaker(0, 2.5, _STEPS, marked=True)
            files = noise_requests(folder, range(10, 13), 2.0, _STEPS)
            victim, *bystanders = await asyncio.gather(
                say(server, marked, timeout_s=_TIMEOUT_S),
                *(say(server, speaker(number, 2.5, _STEPS), timeout_s=_TIMEOUT_S) for number in range(1, 4)),
                *(server.transcribe(request) for request in files),
            )
            is_right = victim.status == fault.status and (victim.is_exact or fault.status != OK)
            are_exact = all(outcome.is_exact for outcome in bystanders)
            shown = f"victim {victim.status}{' exact' * victim.is_exact}; bystanders {exact_of(bystanders)}"
            wanted = f"{fault.status}{' exact' * (fault.status == OK)}; all exact"
            is_met = is_right and are_exact and "connection" not in victim.details
            note = causes(outcome for outcome in (victim, *bystanders) if outcome.status != OK)
            results.fault(fault.name, shown, wanted, is_met, await server.golden(), note)


@pytest.mark.soak("live")
async def test_a_speaker_who_reads_nothing_is_still_heard(results: Results) -> None:
    results.measure = "a speaker who reads late"
    each = speaker(5, 8.0, 3)
    with Server() as server:
        server.load_plan(Plan(step_s=_STEP_S))
        async with server.connect() as stub:
            (call,) = await open_streams(stub, [each])
            began = time.monotonic()
            for piece in np.array_split(each.samples, 27):
                await call.send_message(audio_message(piece))
            sent_s = time.monotonic() - began
            await call.half_close()
            await asyncio.sleep(1.0)
            run = LiveRun()
            async for reply in call.replies():
                run.final = reply.final_result if reply.HasField("final_result") else run.final
                run.events += []
        golden = await server.golden()
    is_exact = run.final is not None and run.final.text == each.text
    results.check("its text", "exact" if is_exact else "NOT exact", "exact", is_exact)
    results.at_most("8 s of sound sent at once, taken after", sent_s, 1.0, "s")
    results.check("golden request", golden, EXACT, golden == EXACT)


@pytest.mark.soak("live")
async def test_sigterm_lets_speakers_have_what_they_said(profile: Profile, results: Results) -> None:
    results.measure = "SIGTERM while they speak"
    speakers = [speaker(number, 8.0, 3) for number in range(min(profile.streams, 8))]
    with Server() as server:
        server.load_plan(Plan(step_s=_STEP_S))
        tasks = [asyncio.create_task(say(server, each, timeout_s=30)) for each in speakers]
        await asyncio.sleep(2.0)
        began = time.monotonic()
        server.signal(signal.SIGTERM)
        code = await asyncio.to_thread(server.wait, 20.0)
        exit_s = None if code is None else time.monotonic() - began
        outcomes = await asyncio.gather(*tasks)
    results.at_most("exit", exit_s, _EXIT_S, "s")
    results.check("exit code", str(code), "0", code == 0)
    with_text = sum(outcome.status == OK and bool(outcome.result.text) for outcome in outcomes)
    shown = f"{with_text} of {len(speakers)}"
    results.check("whole, with a text", shown, "all", with_text == len(speakers), causes(outcomes))


def test_uneven_messages_are_the_sound_in_order() -> None:
    plan = list(uneven_messages(50_000, Random(1)))
    assert [message.first for message in plan] == [0, *(message.last for message in plan[:-1])]
    assert plan[-1].last == 50_000
    assert plan[-1].due_s == 50_000 / SAMPLE_RATE
    assert len({message.last - message.first for message in plan}) > 3


def test_a_stream_whose_deltas_are_not_its_final_text_is_torn() -> None:
    from backend.wire import backend_pb2 as pb
    from devtools.live.paced_client import Event

    run = LiveRun(events=[Event(0, "a")], final=pb.TranscriptResult(text="ab"))
    assert outcome_of(speaker(1, 0.1, 1).request, run, 0).status == "torn"
    assert outcome_of(speaker(1, 0.1, 1).request, LiveRun(failure="INTERNAL: x"), 0).status == "INTERNAL"
    assert outcome_of(speaker(1, 0.1, 1).request, LiveRun(failure="UNAVAILABLE: x"), 0).status == "lost"
