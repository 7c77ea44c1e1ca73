"""Memory, descriptors and children over thousands of requests; and a build that leaks, which must be caught at it.

The slope is least squares over the second half of the run, after a warm-up: what is found once (caches, threads, the
allocator's arenas) is no growth. The leaking build keeps the samples of every request; the same code measures it.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass

from devtools.stress import processes
from devtools.stress.asking import Wanted, asked_anew, own_sound
from devtools.stress.child import VICTIM, Child, Failed
from devtools.stress.form import Form, sound_folder
from devtools.stress.lines import Line, at_most, holds, none_of
from devtools.stress.plan import Plan, taking

MOST_MIB = 5.0  # for 1000 requests
_AT_ONCE = 8
_CLIPS = 24
_CLIP_S = 2.0  # 125 KiB of samples
_SAMPLES = 40  # of memory, in a run
_WARM_UP = 0.25  # of the requests, before the run


@dataclass(frozen=True)
class Growth:
    """`slope`: bytes for one request more. `descriptors` and `children`: how many more there are at the end."""

    slope: float
    held: tuple[int, ...]
    descriptors: int
    children: int
    inexact: int


def measure(form: Form) -> Iterator[Line]:
    form.say(f"memory over {form.requests} requests")
    growth = grown(Plan(steps=2), form.requests)
    name = f"{form.requests} requests"
    note = f"holds {growth.held[-1] / processes.MIB:.0f} MiB at the end"
    yield at_most(name, "memory per 1000, second half", mib(growth.slope), MOST_MIB, "MiB", note)
    yield none_of(name, "descriptors left", max(growth.descriptors, 0))
    yield none_of(name, "children left", max(growth.children, 0))
    yield none_of(name, "not exact", growth.inexact)
    form.say("memory of the build that leaks")
    leak = mib(grown(Plan(steps=2, leaks=True), max(form.requests // 4, 300)).slope)
    yield holds(name, "a build that leaks, per 1000", f"{leak:.0f} MiB", f"> {MOST_MIB:g} MiB", leak > MOST_MIB)


def grown(plan: Plan, requests: int) -> Growth:
    with sound_folder() as folder, Child(VICTIM) as child:
        child.load_plan(plan)
        clips = [own_sound(folder, n, _CLIP_S, taking(2, n), times=n % 2 == 0) for n in range(_CLIPS)]
        asyncio.run(_ask(child, clips, round(requests * _WARM_UP)))
        before = processes.descriptors(child.pid), len(processes.children(child.pid))
        done, held, inexact = [], [], 0
        for number in range(1, _SAMPLES + 1):
            inexact += asyncio.run(_ask(child, clips, requests // _SAMPLES))
            done.append(number * (requests // _SAMPLES))
            held.append(processes.resident(child.pid))
        after = _settled(child, before)
    slope = processes.slope(done, held)
    return Growth(slope, tuple(held), after[0] - before[0], after[1] - before[1], inexact)


async def _ask(child: Child, clips: list[Wanted], requests: int) -> int:
    """How many were not answered exactly."""
    turns = itertools.cycle(clips)
    left = iter(range(requests))

    async def one_after_another() -> int:
        wrong = 0
        for _ in left:
            wanted = next(turns)
            wrong += not (await asked_anew(child.address, wanted)).is_exact(wanted)
        return wrong

    return sum(await asyncio.gather(*(one_after_another() for _ in range(_AT_ONCE))))


def _settled(child: Child, before: tuple[int, int]) -> tuple[int, int]:
    """Descriptors and children; connections take a moment to be closed on the server's side."""
    until = time.monotonic() + 5.0
    while True:
        if not child.is_alive:
            raise Failed(f"ended: {child.last_words()}")
        now = processes.descriptors(child.pid), len(processes.children(child.pid))
        if (now[0] <= before[0] and now[1] <= before[1]) or time.monotonic() > until:
            return now
        time.sleep(0.05)


def mib(bytes_per_request: float) -> float:
    return bytes_per_request * 1000 / processes.MIB
