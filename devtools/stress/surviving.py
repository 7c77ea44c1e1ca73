"""Faults of the models, by plan: each strikes a crowd, and after each a golden request must come back exact.

Of eight requests that run together one is marked, the victim. What it may get is said for every fault; the seven
others, the bystanders, must not notice. One server goes through the faults one after the other, as it would have to;
only where one ended it, or left it unable to answer, the next gets a new one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from devtools.stress.asking import (
    CANCELLED,
    OK,
    Outcome,
    Wanted,
    asked,
    connected,
    golden_is_exact,
    healths,
    own_sound,
    statuses,
)
from devtools.stress.child import VICTIM, Child, Failed
from devtools.stress.form import Form, sound_folder
from devtools.stress.lines import Line, holds
from devtools.stress.plan import Fault, Plan, taking

MEASURE = "fault"
_BYSTANDERS = 7
_LOADS, _COLLECT_EVERY = 150, 1
_STEPS, _STEP_S = 20, 0.003
_LONGER = 10  # where the others must still run when the victim comes or goes
_PATIENCE_S = 15.0
_PROBE_S = 1.0  # the gateway's shortest patience with Health
_INTERNAL, _FULL = "INTERNAL", "RESOURCE_EXHAUSTED"


@dataclass(frozen=True)
class Trial:
    """`victim`: the status that the marked request gets; with OK its text must be exact, too. `warns`: and says so."""

    injected: str
    faults: tuple[Fault, ...]
    victim: str = OK
    times: bool = False
    warns: bool = False
    leaves: bool = False  # the victim's client, while the others run
    late: bool = False  # the victim comes when the others run


TRIALS = (
    Trial("out of memory at the 3rd step, once", (Fault("step", "out of memory", at=3),)),
    Trial("out of memory as one joins those that run, once", (Fault("add", "out of memory", once=True),), late=True),
    Trial("a request that is always too large for a step", (Fault("step", "out of memory"),), _FULL),
    Trial("a request that is always too large to enter", (Fault("add", "out of memory"),), _FULL),
    Trial("an exception at the 5th step, once", (Fault("step", "exception", at=5),)),
    Trial("a request that fails every batch it is in", (Fault("step", "exception"),), _INTERNAL),
    Trial("a request that cannot enter a batch", (Fault("add", "exception"),), _INTERNAL),
    Trial("a session that cannot begin, once", (Fault("session", "exception", at=1),)),
    Trial("a client leaves, and its row cannot be dropped", (Fault("drop", "exception"),), CANCELLED, leaves=True),
    Trial("a text that no reply can hold", (Fault("step", "text that no reply can hold"),), _INTERNAL),
    Trial("a step of 2 s", (Fault("step", "slow", at=4),)),
    Trial("the aligner cannot be loaded", (Fault("load aligner", "exception", at=1),), times=True, warns=True),
    Trial("the aligner fails on a passage", (Fault("align", "exception"),), times=True, warns=True),
    Trial("the aligner runs out of memory on a passage", (Fault("align", "out of memory"),), times=True, warns=True),
    Trial("the aligner fails once", (Fault("align", "exception", at=1),), times=True),
    Trial("the aligner gives times that are no numbers", (Fault("align", "times that are no numbers"),), times=True),
    Trial("the aligner gives too few answers", (Fault("align", "too few answers"),), times=True, warns=True),
)


@dataclass(frozen=True)
class Struck:
    """What a fault did."""

    victim: Outcome
    victim_exact: bool
    bystanders: Sequence[bool]  # whether exact
    bystander_statuses: str
    golden: bool
    health_s: float


def measure(form: Form, trials: Sequence[Trial] = TRIALS) -> Iterator[Line]:
    with sound_folder() as folder, ExitStack() as stack:
        child: Child | None = None
        for trial in trials:
            form.say(f"fault: {trial.injected}")
            if child is None or not child.is_alive:
                child = stack.enter_context(Child())
            struck = strike(child, trial, folder)
            yield line_of(trial, struck)
            if not struck.golden:
                child = None


def strike(child: Child, trial: Trial, folder: Path) -> Struck:
    child.load_plan(Plan(step_s=_STEP_S, faults=trial.faults), f"batch_max_size:{_BYSTANDERS + 1}")
    prompt = taking(_STEPS * (_LONGER if trial.leaves or trial.late else 1))
    victim = own_sound(folder, 0, 2.0, prompt, times=trial.times, marked=True)
    others = [own_sound(folder, 1 + n, 2.0, f"{prompt} {n}", times=trial.times) for n in range(_BYSTANDERS)]
    first, outcomes, health_s = asyncio.run(_crowd(child.address, victim, others, trial))
    exact = [outcome.is_exact(wanted) for wanted, outcome in zip(others, outcomes, strict=True)]
    golden = own_sound(folder, 99, 1.5, taking(2))
    return Struck(
        first, first.is_exact(victim), exact, statuses(outcomes), golden_is_exact(child, golden), max(health_s)
    )


async def _crowd(
    address: str, victim: Wanted, others: Sequence[Wanted], trial: Trial
) -> tuple[Outcome, list[Outcome], list[float]]:
    ended = asyncio.Event()
    watching = asyncio.create_task(healths(address, ended))
    async with connected(address) as stub:
        rest = [asyncio.create_task(asked(stub, wanted, _PATIENCE_S)) for wanted in others]
        if trial.late:
            await asyncio.sleep(_STEPS * _STEP_S)
        first = asyncio.create_task(asked(stub, victim, _PATIENCE_S))
        if trial.leaves:
            await asyncio.sleep(_STEPS * _STEP_S * 3)
            first.cancel()
        outcomes = await asyncio.gather(*rest)
        try:
            mine = await first
        except asyncio.CancelledError:
            mine = Outcome(CANCELLED, 0.0)
    ended.set()
    return mine, outcomes, await watching


def line_of(trial: Trial, struck: Struck) -> Line:
    exact = sum(struck.bystanders)
    good = struck.victim.status == trial.victim and (trial.victim != OK or struck.victim_exact)
    warned = not trial.warns or bool(struck.victim.warning)
    leaked = "connection" in struck.victim.details  # the fault's own text, on which the gateway acts
    measured = (
        f"victim {said(struck.victim, struck.victim_exact)}; bystanders {exact} of {len(struck.bystanders)} exact; "
        f"golden {'exact' if struck.golden else 'NOT EXACT'}"
    )
    problems = {
        f"bystanders: {struck.bystander_statuses}": exact < len(struck.bystanders),
        "no warning": not warned,
        "the cause's own text got out": leaked,
        f"Health took {struck.health_s:.2f} s": struck.health_s > _PROBE_S,
    }
    note = "; ".join(problem for problem, there in problems.items() if there)
    is_met = good and exact == len(struck.bystanders) and struck.golden and not note
    return holds(
        MEASURE, trial.injected, measured, f"{wanted_of(trial)}; all exact; exact", is_met, note,
        health_s=struck.health_s,
    )  # fmt: skip


def said(outcome: Outcome, exact: bool) -> str:
    return f"{outcome.status}{' exact' if exact else ''}{' + warning' if outcome.warning else ''}"


def wanted_of(trial: Trial) -> str:
    return f"{trial.victim}{' exact' if trial.victim == OK else ''}{' + warning' if trial.warns else ''}"


def replaced(form: Form) -> Iterator[Line]:
    """One model after the other under load. A request that comes between two is told so; all others are answered."""
    form.say(f"fault: {_LOADS} loads under load")
    with sound_folder() as folder, Child(VICTIM, "--collect-every", str(_COLLECT_EVERY)) as child:
        child.load_plan(Plan())
        sounds = [own_sound(folder, number, 0.3, taking(2, number), times=number % 2 == 0) for number in range(4)]
        outcomes, loads = asyncio.run(_reloaded(child, sounds))
        golden = child.is_alive and loads == _LOADS and golden_is_exact(child, own_sound(folder, 99, 1.5, taking(2)))
    bad = [o for w, o in outcomes if not o.is_exact(w) and o.status != "FAILED_PRECONDITION"]
    shown = f"{loads} loads; {len(bad)} of {len(outcomes)} lost or wrong; golden {'exact' if golden else 'NOT EXACT'}"
    yield holds(
        MEASURE,
        f"{_LOADS} other models, one after the other",
        shown,
        f"{_LOADS} loads; 0; exact",
        loads == _LOADS and not bad and golden,
        statuses([outcome for _, outcome in outcomes]),
    )


async def _reloaded(child: Child, sounds: Sequence[Wanted]) -> tuple[list[tuple[Wanted, Outcome]], int]:
    """What became of the requests, and how many loads succeeded."""
    outcomes: list[tuple[Wanted, Outcome]] = []
    ended = asyncio.Event()

    async def stream(wanted: Wanted) -> None:
        async with connected(child.address) as stub:
            while not ended.is_set():
                outcomes.append((wanted, await asked(stub, wanted, _PATIENCE_S)))

    streams = [asyncio.create_task(stream(wanted)) for wanted in sounds]
    loads = 0
    while loads < _LOADS:
        try:
            await asyncio.to_thread(child.load_plan, Plan(step_s=0.001 + loads * 1e-9), patience_s=_PATIENCE_S)
        except Failed:
            break
        loads += 1
    ended.set()
    await asyncio.gather(*streams)
    return outcomes, loads


def refused_load(form: Form) -> Iterator[Line]:
    """A load that fails while others are served: it is refused, and the model that was there goes on."""
    form.say("fault: a load that fails")
    with sound_folder() as folder, Child() as child:
        child.load_plan(Plan())
        golden = own_sound(folder, 99, 1.5, taking(2))
        try:
            child.load_plan(Plan(faults=(Fault("load recognizer", "out of memory", at=1),)))
            said_to = "loaded"
        except Failed as refusal:
            said_to = "refused" if "refused" in str(refusal) else str(refusal)
        exact = golden_is_exact(child, golden)
    yield holds(
        MEASURE,
        "another model that does not fit",
        f"LoadModel {said_to}; golden {'exact' if exact else 'NOT EXACT'}",
        "refused; exact",
        said_to == "refused" and exact,
    )
