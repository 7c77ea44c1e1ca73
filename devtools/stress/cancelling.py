"""From a client's leaving to a free slot, in every stage of a request's way.

Seen from outside, so that it holds for whatever the server does inside: the server is filled with requests that all
stand in one stage, all of them leave at a random moment, and the next request must be answered. Its own few
milliseconds are counted in.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import soundfile

from devtools.stress.asking import OK, Wanted, asked, connected, own_sound
from devtools.stress.child import ROOT, RUN, VICTIM, Child, Failed
from devtools.stress.form import Form, sound_folder
from devtools.stress.lines import Line, at_most, quantile
from devtools.stress.plan import Plan, taking
from devtools.stress.sounds import long_sound

_FREE_S = 1.0
_BOUND = 16  # requests at once
_LONG = 100_000  # steps: longer than any trial
_PROBE_S = 15.0
_HOPELESS = 3  # times in a row ten times too late: what comes after says nothing new
_DECODED_S = 3600.0  # of FLAC: seconds of decoding
_PASSAGES_S = 600.0  # of sound: forty passages to align


@dataclass(frozen=True)
class Stage:
    """`options` of the load, `plan` of the fakes; `crowd` stands in the stage at moments in `window_s`."""

    name: str
    plan: Plan
    options: tuple[str, ...]
    crowd: Callable[[Path], list[Wanted]]
    window_s: tuple[float, float]


def _recognised(folder: Path) -> list[Wanted]:
    return [own_sound(folder, number, 2.0, taking(_LONG, number)) for number in range(2)]


def _queued(folder: Path) -> list[Wanted]:
    """As many as fit: two run, the others wait."""
    return [own_sound(folder, number, 2.0, taking(_LONG, number)) for number in range(_BOUND)]


def _decoded(folder: Path, copies: int = _BOUND) -> list[Wanted]:
    """FLAC goes through the slower decoder; as many as fill every thread or process that decodes."""
    path = long_sound(folder / "long.flac", _DECODED_S, level=0.3)
    return [Wanted(path, "", prompt=taking(_LONG, number)) for number in range(copies)]


def _aligned(folder: Path) -> list[Wanted]:
    """Recognised at once, then many passages to align."""
    path = folder / "passages.wav"
    soundfile.write(path, np.random.default_rng(1).uniform(-0.5, 0.5, int(_PASSAGES_S) * 16_000), 16_000)
    return [Wanted(path, "", prompt=taking(1, number), times=True) for number in range(2)]


STAGES = (
    Stage("recognise", Plan(step_s=0.01), ("batch_max_size:2",), _recognised, (0.05, 0.5)),
    Stage("queue", Plan(step_s=0.01), ("batch_max_size:2",), _queued, (0.05, 0.5)),
    Stage("decode", Plan(), ("batch_max_size:2",), _decoded, (0.1, 1.0)),
    Stage("align", Plan(step_s=0.0005, passage_s=0.1), ("batch_max_size:4",), _aligned, (1.0, 2.0)),
)


def measure(form: Form, stages: Sequence[Stage] = STAGES) -> Iterator[Line]:
    """p99 of so many; of twenty that is the longest."""
    with sound_folder() as folder, ExitStack() as stack:
        child = stack.enter_context(Child(VICTIM, "--most-requests", str(_BOUND)))
        probe = own_sound(folder, 999, 0.2, taking(1))
        for stage in stages:
            form.say(f"cancel in {stage.name}: {form.cancels} times")
            child.load_plan(stage.plan, *stage.options)
            once = partial(freed, child.address, stage.crowd(folder), probe, 0.0)
            yield _line(stage.name, form, once, stage.window_s)


def measure_demo(form: Form) -> Iterator[Line]:
    """Three minutes of speech with word times, through the real models, left at any moment."""
    form.say(f"cancel with the demo models: {form.cancels} times")
    with Child(RUN) as child:
        child.load_demo()
        long = Wanted(ROOT / "test/audio/long.flac", "", times=True)
        probe = Wanted(ROOT / "test/audio/chinese.wav", "")
        whole_s = asyncio.run(_timed(child.address, long))
        alone_s = min(asyncio.run(_timed(child.address, probe)) for _ in range(3))
        once = partial(freed, child.address, [long] * 2, probe, alone_s)
        yield _line("anywhere, demo models", form, once, (0.0, whole_s))


def _line(
    name: str, form: Form, once: Callable[[float], Coroutine[Any, Any, float]], window_s: tuple[float, float]
) -> Line:
    chance = Random(f"{form.seed}/{name}")
    took: list[float] = []
    while len(took) < form.cancels and min([0.0, 0.0, 0.0, *took][-_HOPELESS:]) < 10 * _FREE_S:
        took.append(asyncio.run(once(chance.uniform(*window_s))))
    note = f"{len(took)} times: median {quantile(took, 0.5):.3f} s, longest {max(took):.3f} s"
    return at_most("cancel → free slot", f"{name}, p99", quantile(took, 0.99), _FREE_S, "s", note)


async def freed(address: str, crowd: Sequence[Wanted], probe: Wanted, alone_s: float, after_s: float) -> float:
    """Seconds from the moment when all of the crowd left until the probe was answered, less what it takes alone."""
    async with connected(address) as stub, connected(address) as other:
        tasks = [asyncio.create_task(asked(stub, wanted)) for wanted in crowd]
        await asyncio.sleep(after_s)
        for task in tasks:
            task.cancel()
        began = time.monotonic()
        await asyncio.gather(*tasks, return_exceptions=True)
        while (outcome := await asked(other, probe, _PROBE_S)).status == "RESOURCE_EXHAUSTED":
            if time.monotonic() - began > _PROBE_S:
                break
            await asyncio.sleep(0.005)
        took_s = time.monotonic() - began
        if outcome.status != OK:
            return _PROBE_S
        return max(took_s - alone_s, 0.0)


async def _timed(address: str, wanted: Wanted) -> float:
    async with connected(address) as stub:
        outcome = await asked(stub, wanted)
    if outcome.status != OK:
        raise Failed(f"{wanted.path.name}: {outcome.details}")
    return outcome.took_s
