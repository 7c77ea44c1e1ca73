"""What it takes to be ready: the process, its model, and the aligner that the first request for times brings."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

from devtools.bench import clips, memory
from devtools.bench.child import OURS, TODAY, Child, System
from devtools.bench.inside import Inside
from devtools.bench.memory import Memory, Peak
from devtools.bench.pairs import Goal, Row, alternate
from devtools.bench.plan import Plan, rows_or_failure
from devtools.bench.shapes import DEMO_ALIGNER, DEMO_MODEL

_HEALTH_S = 0.5
MIB = 1 << 20


def health(plan: Plan) -> Iterator[Row]:
    """Seconds from the start of the process to its first Health. Each side once before, for the files' sake."""
    rivals = [TODAY] * plan.with_today
    if plan.earlier and plan.rivals != "today":
        rivals.append(plan.earlier)
    for rival in rivals:

        def rows(rival: System = rival) -> Iterator[Row]:
            if not plan.is_quick:
                _up_s(OURS), _up_s(rival)
            found = plan.pairs(f"Health, against {rival.name}", lambda: _up_s(OURS), lambda: _up_s(rival))
            yield Row("Health", "ours", rival.name, "s", pairs=found, goal=Goal("≥", 15) if rival is TODAY else None)
            if rival is TODAY:
                half = tuple((ours, _HEALTH_S) for ours, _ in found)
                yield Row("Health", "ours", "half a second", "s", "share", half, Goal("≤", 1))

        yield from rows_or_failure("Health", "ours", rival.name, rows)


def _up_s(system: System) -> float:
    with Child(system) as child:
        return child.up_s


class Load(NamedTuple):
    """`up_s`: until Health. `whole`: bytes that it held at most; `peak`: above what its libraries hold."""

    up_s: float
    took_s: float
    whole: int
    peak: Memory
    weight_bytes: int


def load(plan: Plan) -> Iterator[Row]:
    """LoadModel in a fresh process: seconds, imports included, and the peak of its memory.

    The peak is what the kernel counted since the process began, less what a process holds that has imported
    everything: one that has loaded the demo's model, which is 10 MB. Its anonymous part is sampled.
    """
    for subject, rival in plan.contests:
        yield from rows_or_failure(
            "LoadModel", subject.name, rival.name, functools.partial(_load_rows, plan, subject, rival)
        )


def _load_rows(plan: Plan, subject: System, rival: System) -> Iterator[Row]:
    plan.say(f"LoadModel, {subject.name} against {rival.name}: {plan.runs} pairs")
    floors = {system: floor(system) for system in (subject, rival)}
    found = alternate(
        plan.runs,
        lambda: _loaded_once(plan, subject, floors[subject]),
        lambda: _loaded_once(plan, rival, floors[rival]),
    )
    sides = (subject.name, rival.name)
    yield Row("LoadModel", *sides, "s", pairs=tuple((a.took_s, b.took_s) for a, b in found), note=rival.note)
    ready = tuple((a.up_s + a.took_s, b.up_s + b.took_s) for a, b in found)
    yield Row("process start to loaded", *sides, "s", pairs=ready)
    if rival is not TODAY:
        whole = tuple((a.whole / MIB, b.whole / MIB) for a, b in found)
        yield Row("LoadModel, the process's peak memory", *sides, "MiB", pairs=whole)
    if plan.is_demo:  # its weights are less than what the libraries' own memory varies by
        return
    peaks = tuple((a.peak.resident / MIB, b.peak.resident / MIB) for a, b in found)
    yield Row("LoadModel, peak memory", *sides, "MiB", pairs=peaks)
    if rival is TODAY:
        for kind, goal in (("resident", Goal("≤", 1.15)), ("anonymous", None)):
            shares = tuple((getattr(a.peak, kind) / MIB, a.weight_bytes / MIB) for a, _ in found)
            yield Row(f"LoadModel, peak {kind} memory", subject.name, "its weights", "MiB", "share", shares, goal)


def _loaded_once(plan: Plan, system: System, floor: Memory) -> Load:
    with Child(system) as child, Peak(child.pid) as peak:
        took_s = child.load(system.load_options(plan.model()))
        weights = 0 if system is TODAY else child.weight_bytes()
        peak.stop()
        return Load(child.up_s, took_s, peak.memory.resident, peak.memory.above(floor), weights)


def floor(system: System, *, words: bool = False) -> Memory:
    """What the process holds with everything imported, also what times need, and as good as no model."""
    with Child(system) as child:
        child.load(system.load_options(DEMO_MODEL, DEMO_ALIGNER if words else None))
        if words:
            child.ask(clips.clip(0), words=True)
        return memory.now(child.pid)


class Swap(NamedTuple):
    """Seconds to Health, of LoadModel and of the first two requests for words; bytes over the process's libraries."""

    up_s: float
    load_s: float
    first_s: float
    second_s: float
    before: Memory
    during: Memory
    whole: int
    weight_bytes: int


def swap(plan: Plan) -> Iterator[Row]:
    """The aligner's arrival with the first request for words.

    Against today's way, which loads both at LoadModel: from the start of the process to the first words, and the peak
    of it all. Against the weights of both, and against a second instance beside the lean one: the request that swaps.
    """
    subject = next((system for system in plan.subjects if system.name == "ours bf16"), plan.subjects[0])
    if plan.with_today:
        yield from rows_or_failure("swap", subject.name, TODAY.name, functools.partial(_swap_rows, plan, subject))
    for rival in (theirs for ours, theirs in plan.contests_with_earlier if ours is subject):
        rows = functools.partial(_swap_against, plan, subject, rival)
        yield from rows_or_failure("swap", subject.name, rival.name, rows)


def _swap_against(plan: Plan, subject: System, rival: System) -> Iterator[Row]:
    """Against an earlier revision, which swaps as well: the memory of the whole process, libraries included."""
    plan.say(f"the swap, {subject.name} against {rival.name}: {plan.runs} pairs")
    none = Memory(0, 0)
    found = alternate(plan.runs, lambda: _swapped_once(plan, subject, none), lambda: _swapped_once(plan, rival, none))
    sides = (subject.name, rival.name)
    took = tuple((a.first_s - a.second_s, b.first_s - b.second_s) for a, b in found)
    yield Row("swap", *sides, "s", pairs=took, note="first request for words less a later one")
    starts = tuple((a.up_s + a.load_s + a.first_s, b.up_s + b.load_s + b.first_s) for a, b in found)
    yield Row("process start to first words", *sides, "s", pairs=starts, note=rival.note)
    peaks = tuple((a.during.resident / MIB, b.during.resident / MIB) for a, b in found)
    yield Row("swap, the process's peak memory", *sides, "MiB", pairs=peaks)


def _swap_rows(plan: Plan, subject: System) -> Iterator[Row]:
    plan.say(f"the swap: {plan.runs} pairs")
    floors = {system: floor(system, words=True) for system in (subject, TODAY)}
    found = alternate(
        plan.runs,
        lambda: _swapped_once(plan, subject, floors[subject]),
        lambda: _swapped_once(plan, TODAY, floors[TODAY]),
    )
    sides = (subject.name, f"{TODAY.name}, eager")
    starts = tuple((a.up_s + a.load_s + a.first_s, b.up_s + b.load_s + b.first_s) for a, b in found)
    yield Row("process start to first words", *sides, "s", pairs=starts)
    if plan.is_demo:
        return
    yield Row("the same, peak memory", *sides, "MiB", pairs=tuple((a.whole / MIB, b.whole / MIB) for a, b in found))
    for kind, goal in (("resident", Goal("≤", 1.05)), ("anonymous", None)):
        shares = tuple((getattr(a.during, kind) / MIB, a.weight_bytes / MIB) for a, _ in found)
        yield Row(f"swap, peak {kind} memory", subject.name, "both weights", "MiB", "share", shares, goal)
    plan.say(f"a second instance: {plan.runs} times")
    seconds = [_second_instance(plan, subject) for _ in range(plan.runs)]
    ours = [a for a, _ in found]
    sides = (subject.name, "a second instance")
    took = tuple((a.first_s - a.second_s, s) for a, (s, _) in zip(ours, seconds, strict=True))
    yield Row("swap", *sides, "s", pairs=took, note="first request for words less a later one")
    rises = tuple(
        ((a.during.resident - a.before.resident) / MIB, rise / MIB) for a, (_, rise) in zip(ours, seconds, strict=True)
    )
    yield Row("swap, rise of memory", *sides, "MiB", pairs=rises)


def _swapped_once(plan: Plan, system: System, floor: Memory) -> Swap:
    with Child(system) as child:
        load_s = child.load(system.load_options(plan.model(), plan.aligner))
        if system is not TODAY:
            child.ask(clips.clip(0))  # a plain request never brings the aligner
        before, loading = memory.now(child.pid), memory.peak_resident(child.pid)
        with Peak(child.pid) as peak:
            first = child.ask(clips.clip(0), words=True)
            peak.stop()
        second = child.ask(clips.clip(0), words=True)
        weights = 0 if system is TODAY else child.weight_bytes()
        whole = max(loading, peak.memory.resident) - floor.resident
        over = before.above(floor), peak.memory.above(floor)
        return Swap(child.up_s, load_s, first.took_s, second.took_s, *over, whole, weights)


def _second_instance(plan: Plan, system: System) -> tuple[float, int]:
    """Seconds and rise of the peak of loading recogniser and aligner beside a recogniser."""
    with Inside() as inside:
        arguments = {"dtype": system.dtype, "quantization": system.quantization, "model": str(plan.model())}
        inside.do("load", **arguments)
        before = memory.now(inside.pid).resident
        with Peak(inside.pid) as peak:
            took_s = inside.do("load", aligner=str(plan.aligner), **arguments)["took_s"]
            peak.stop()
        return float(took_s), peak.memory.resident - before
