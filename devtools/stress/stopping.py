"""SIGTERM under load: out in 12.5 s with exit code 0, nothing lost that could finish, and no child left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from backend.wire import backend_pb2 as pb
from devtools.stress import processes
from devtools.stress.asking import LOST, OK, Outcome, Wanted, asked, connected, own_sound, statuses
from devtools.stress.child import ROOT, RUN, Child
from devtools.stress.form import Form, sound_folder
from devtools.stress.lines import Line, at_most, holds, none_of
from devtools.stress.plan import Plan, taking

_EXIT_S = 12.5
_PATIENCE_S = 20.0  # for an exit that is late
_BRIEF, _ENDLESS = 150, 1_000_000  # steps of 10 ms


@dataclass(frozen=True)
class Stop:
    """`exit_s` is None if it had to be killed. `left`: its children that outlived it."""

    exit_s: float | None
    code: int | None
    left: Sequence[int]
    outcomes: Sequence[Outcome]


def measure_demo(form: Form) -> Iterator[Line]:
    """The demo's models, with many recordings of seconds and one of minutes in flight."""
    form.say("SIGTERM with the demo models")
    with Child(RUN) as child:
        child.load_demo()
        audio = ROOT / "test/audio"
        crowd = [Wanted(audio / name, "", times=True) for name in ("demo.wav", "chinese.wav", "left_out.wav")] * 3
        stop = asyncio.run(_stopped(child, [*crowd, Wanted(audio / "long.flac", "")], after_s=0.3))
    yield from lines_of("SIGTERM, demo models", stop, can_finish=len(crowd) + 1)


def measure_fakes(form: Form, never_end: int = 2) -> Iterator[Line]:
    """Requests of 1.5 s beside some that would never end: they must not take the others with them."""
    form.say("SIGTERM with requests that cannot end")
    with sound_folder() as folder, Child() as child:
        child.load_plan(Plan(step_s=0.01))
        brief = [own_sound(folder, number, 1.0, taking(_BRIEF, number)) for number in range(6)]
        endless = [own_sound(folder, 100 + number, 1.0, taking(_ENDLESS, number)) for number in range(never_end)]
        stop = asyncio.run(_stopped(child, [*brief, *endless], after_s=0.3))
    yield from lines_of("SIGTERM, some never end", stop, can_finish=len(brief))


def lines_of(measure: str, stop: Stop, can_finish: int) -> Iterator[Line]:
    """The first `can_finish` of the outcomes are of those that could."""
    yield at_most(measure, "exit", stop.exit_s, _EXIT_S, "s")
    yield holds(measure, "exit code", str(stop.code), "0", stop.code == 0)
    finished = [outcome.status == OK and bool(outcome.result.text) for outcome in stop.outcomes[:can_finish]]
    yield none_of(measure, f"lost of {can_finish} that could finish", finished.count(False))
    if rest := stop.outcomes[can_finish:]:
        told = all(outcome.status not in (OK, LOST) for outcome in rest)
        causes = "; ".join(sorted({outcome.details for outcome in rest}))
        yield holds(measure, "the others", statuses(rest), "a status", told, causes)
    yield none_of(measure, "children left", len(stop.left))


async def _stopped(child: Child, crowd: Sequence[Wanted], after_s: float) -> Stop:
    async with connected(child.address) as stub:
        tasks = [asyncio.create_task(asked(stub, wanted)) for wanted in crowd]
        while child.stub.Status(pb.HealthMessage(), timeout=5).state != pb.StatusResponse.BUSY:  # noqa: ASYNC110 - polled
            await asyncio.sleep(0.005)
        await asyncio.sleep(after_s)
        family = processes.children(child.pid)
        began = time.monotonic()
        os.killpg(child.pid, signal.SIGTERM)  # the gateway signals the group
        code = await asyncio.to_thread(child.ended, _PATIENCE_S)
        exit_s = time.monotonic() - began if code is not None else None
        if code is None:
            child.process.kill()
        outcomes = await asyncio.gather(*tasks)
    return Stop(exit_s, code, processes.wait_until_gone(family, 1.0), outcomes)
