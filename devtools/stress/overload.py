"""Four times as much as the server can do: what is too much must be told so at once, and Health must not wait.

The server's bounds are small here. Its capacity is measured first, by a crowd that it can just hold; then requests
arrive at four times that rate, whatever becomes of the earlier ones.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from devtools.stress.asking import LOST, OK, Outcome, Wanted, asked, connected, healths, own_sound, statuses
from devtools.stress.child import VICTIM, Child
from devtools.stress.form import Form, sound_folder
from devtools.stress.lines import Line, at_most, none_of, quantile, told
from devtools.stress.plan import Plan, taking

_TIMES = 4
_BOUND = 12  # requests at once
_ROWS = 4  # that run together
_STEPS, _STEP_S = 40, 0.005  # 0.2 s for a request, 20 a second in all: few enough for the client not to be the limit
_REFUSED_S, _HEALTH_S = 0.05, 0.1
_CLIPS = 16
_FULL = "RESOURCE_EXHAUSTED"


def measure(form: Form) -> Iterator[Line]:
    form.say(f"{_TIMES} × overload for {form.overload_s:g} s")
    with sound_folder() as folder, Child(VICTIM, "--most-requests", str(_BOUND)) as child:
        child.load_plan(Plan(step_s=_STEP_S), f"batch_max_size:{_ROWS}")
        clips = [own_sound(folder, number, 1.0, taking(_STEPS, number)) for number in range(_CLIPS)]
        rate, outcomes, health_s = asyncio.run(_overload(child.address, clips, form.overload_s))
    yield from lines_of(rate, outcomes, health_s)


def lines_of(rate: float, outcomes: list[tuple[Wanted, Outcome]], health_s: list[float]) -> Iterator[Line]:
    name = f"{_TIMES} × overload"
    every = [outcome for _, outcome in outcomes]
    refused = [outcome.took_s for outcome in every if outcome.status == _FULL]
    answered = sum(outcome.status == OK for outcome in every)
    yield told(name, "arrived", f"{len(every)} = {statuses(every)}", sent=len(every), rate=rate, answered=answered)
    yield none_of(name, "lost", sum(outcome.status == LOST for outcome in every))
    yield none_of(name, "wrong", sum(o.status == OK and not o.is_exact(wanted) for wanted, o in outcomes))
    others = [outcome for outcome in every if outcome.status not in (OK, _FULL, LOST)]
    yield none_of(name, "refused by another status", len(others), "; ".join({outcome.details for outcome in others}))
    yield at_most(name, "refusal, p99", quantile(refused, 0.99), _REFUSED_S, "s")
    yield at_most(name, "Health, p99", quantile(health_s, 0.99), _HEALTH_S, "s")


async def _overload(
    address: str, clips: list[Wanted], seconds: float
) -> tuple[float, list[tuple[Wanted, Outcome]], list[float]]:
    """Requests a second that it can do, what became of each that arrived, and how long Health took."""
    async with connected(address) as stub:
        began = time.monotonic()
        crowd = [clips[number % len(clips)] for number in range(_BOUND)]
        await asyncio.gather(*(asked(stub, wanted) for wanted in crowd))
        rate = len(crowd) / (time.monotonic() - began)
        ended = asyncio.Event()
        watching = asyncio.create_task(healths(address, ended))
        arrived = []
        began = time.monotonic()
        for number in range(round(seconds * rate * _TIMES)):
            await asyncio.sleep(max(began + number / (rate * _TIMES) - time.monotonic(), 0))
            wanted = clips[number % len(clips)]
            arrived.append((wanted, asyncio.create_task(asked(stub, wanted))))
        outcomes = [(wanted, await task) for wanted, task in arrived]
        ended.set()
        return rate, outcomes, await watching
