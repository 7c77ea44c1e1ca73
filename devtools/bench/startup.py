"""Time and memory until a server is ready: its process, its model, and the aligner on the first request for words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from devtools.bench import clips
from devtools.bench.benchmark import Benchmark
from devtools.bench.engine_worker import Worker
from devtools.bench.measurement import Goal, Row, in_unit, rows_or_failure
from devtools.bench.system import BASELINE, OURS, Server, System
from devtools.procfs import MIB, Memory, PeakMemory, memory, peak_resident_bytes
from devtools.server_process import DEMO_ALIGNER, DEMO_MODEL

_HEALTH_S = 0.5
_NOTHING = Memory(0, 0)
_SWAP_NOTE = "first request for words less a later one"


def health(bench: Benchmark) -> Iterator[Row]:
    """Seconds from the start of the process to its first Health."""
    for rival in dict.fromkeys(bench.earlier if side is not BASELINE else side for _, side in bench.contests):
        assert rival is not None
        yield from rows_or_failure("Health", "ours", rival.name, _health_rows(bench, rival))


def _health_rows(bench: Benchmark, rival: System) -> Iterator[Row]:
    if not bench.is_quick:
        _up_s(OURS), _up_s(rival)  # reads their files into the page cache
    pairs = bench.pairs(f"Health, against {rival.name}", lambda: _up_s(OURS), lambda: _up_s(rival))
    goal = Goal("≥", 15) if rival is BASELINE else None
    yield Row("Health", "ours", rival.name, "s", pairs=pairs, goal=goal, note=rival.note)
    if rival is BASELINE:
        half = tuple((ours, _HEALTH_S) for ours, _ in pairs)
        yield Row("Health", "ours", "half a second", "s", "share", half, Goal("≤", 1))


def _up_s(system: System) -> float:
    with Server(system) as server:
        return server.up_s


class Start(NamedTuple):
    """A server's start: `up_s` to Health, `load_s` of LoadModel, then the first two requests for words.

    Peaks until the model is loaded and during the first request for words, and what was held before that request.
    """

    up_s: float
    load_s: float
    loading: Memory
    weight_bytes: int
    first_s: float = 0.0
    second_s: float = 0.0
    before: Memory = _NOTHING
    words: Memory = _NOTHING


def load(bench: Benchmark) -> Iterator[Row]:
    """LoadModel in a new process: seconds, imports included, and peak memory.

    Peak memory is counted above what a process holds that has imported everything: one with the demo's model, which is
    10 MB. Against the earlier revision also as the whole process's, which the demo's shape has as well.
    """
    for subject, rival in bench.contests:
        yield from rows_or_failure("LoadModel", subject.name, rival.name, _load_rows(bench, subject, rival))


def _load_rows(bench: Benchmark, subject: System, rival: System) -> Iterator[Row]:
    floors = {system: _floor(system) for system in (subject, rival)}
    what = f"LoadModel, {subject.name} against {rival.name}"
    found = bench.pairs(what, lambda: _start(bench, subject), lambda: _start(bench, rival))
    sides = (subject.name, rival.name)
    yield Row("LoadModel", *sides, "s", pairs=in_unit(found, lambda start: start.load_s), note=rival.note)
    yield Row("process start to loaded", *sides, "s", pairs=in_unit(found, lambda start: start.up_s + start.load_s))
    if rival is not BASELINE:
        whole = in_unit(found, lambda start: start.loading.resident / MIB)
        yield Row("LoadModel, the process's peak memory", *sides, "MiB", pairs=whole)
    if bench.is_demo:  # its weights are less than the libraries' own memory varies by
        return
    above = [(a.loading.above(floors[subject]), b.loading.above(floors[rival])) for a, b in found]
    yield Row("LoadModel, peak memory", *sides, "MiB", pairs=in_unit(above, lambda peak: peak.resident / MIB))
    if rival is BASELINE:
        for kind, goal in (("resident", Goal("≤", 1.15)), ("anonymous", None)):
            ours = zip(above, found, strict=True)
            shares = tuple((getattr(peak, kind) / MIB, start.weight_bytes / MIB) for (peak, _), (start, _) in ours)
            yield Row(f"LoadModel, peak {kind} memory", subject.name, "its weights", "MiB", "share", shares, goal)


def _start(bench: Benchmark, system: System, *, words: bool = False) -> Start:
    """A new process up to a loaded model; with `words`, up to the second request for words."""
    with Server(system) as server:
        with PeakMemory(server.pid) as peak:
            load_s = server.load_model(bench.model(), bench.aligner if words else None)
            loading = peak.memory()
        weights = 0 if system is BASELINE else server.weight_bytes()
        if not words:
            return Start(server.up_s, load_s, loading, weights)
        if system is not BASELINE:
            server.transcribe(clips.clip(0))  # a plain request never loads the aligner
        loading = Memory(peak_resident_bytes(server.pid), loading.anonymous)
        with PeakMemory(server.pid) as peak:
            first = server.transcribe(clips.clip(0), words=True)
            during = peak.memory()
        second = server.transcribe(clips.clip(0), words=True)
        weights = 0 if system is BASELINE else server.weight_bytes()
        return Start(server.up_s, load_s, loading, weights, first.took_s, second.took_s, peak.before, during)


def _floor(system: System, *, words: bool = False) -> Memory:
    """What a process holds with everything imported, with `words` also for times, and next to no weights."""
    with Server(system) as server:
        server.load_model(DEMO_MODEL, DEMO_ALIGNER if words else None)
        if words:
            server.transcribe(clips.clip(0), words=True)
        return memory(server.pid)


def swap(bench: Benchmark) -> Iterator[Row]:
    """The aligner is loaded by the first request for words.

    The baseline loads both models in LoadModel: compared from the start of the process to the first words. The request
    that swaps is compared with the weights of both models and with a second instance beside the first.
    """
    subject = next((system for system in bench.subjects if system.name == "ours bf16"), bench.subjects[0])
    for ours, rival in bench.contests:
        if ours is subject:
            rows = _swap_rows(bench, ours) if rival is BASELINE else _swap_against(bench, ours, rival)
            yield from rows_or_failure("swap", ours.name, rival.name, rows)


def _swap_pairs(bench: Benchmark, subject: System, rival: System) -> tuple[tuple[Start, Start], ...]:
    what = f"the swap, {subject.name} against {rival.name}"
    return bench.pairs(what, lambda: _start(bench, subject, words=True), lambda: _start(bench, rival, words=True))


def _to_first_words_s(start: Start) -> float:
    return start.up_s + start.load_s + start.first_s


def _swap_against(bench: Benchmark, subject: System, rival: System) -> Iterator[Row]:
    found, sides = _swap_pairs(bench, subject, rival), (subject.name, rival.name)
    took = in_unit(found, lambda start: start.first_s - start.second_s)
    yield Row("swap", *sides, "s", pairs=took, note=_SWAP_NOTE)
    yield Row("process start to first words", *sides, "s", pairs=in_unit(found, _to_first_words_s), note=rival.note)
    peaks = in_unit(found, lambda start: start.words.resident / MIB)
    yield Row("swap, the process's peak memory", *sides, "MiB", pairs=peaks)


def _swap_rows(bench: Benchmark, subject: System) -> Iterator[Row]:
    floors = {system: _floor(system, words=True) for system in (subject, BASELINE)}
    found, sides = _swap_pairs(bench, subject, BASELINE), (subject.name, f"{BASELINE.name}, eager")
    yield Row("process start to first words", *sides, "s", pairs=in_unit(found, _to_first_words_s))
    if bench.is_demo:
        return
    whole = [(_whole(a) - floors[subject].resident, _whole(b) - floors[BASELINE].resident) for a, b in found]
    yield Row("the same, peak memory", *sides, "MiB", pairs=in_unit(whole, lambda peak: peak / MIB))
    ours = [start for start, _ in found]
    for kind, goal in (("resident", Goal("≤", 1.05)), ("anonymous", None)):
        peaks = [getattr(start.words.above(floors[subject]), kind) / MIB for start in ours]
        shares = tuple((peak, start.weight_bytes / MIB) for peak, start in zip(peaks, ours, strict=True))
        yield Row(f"swap, peak {kind} memory", subject.name, "both weights", "MiB", "share", shares, goal)
    bench.say(f"a second instance: {bench.runs} times")
    both = list(zip(ours, [_second_instance(bench, subject) for _ in ours], strict=True))
    sides = (subject.name, "a second instance")
    took = tuple((start.first_s - start.second_s, second_s) for start, (second_s, _) in both)
    yield Row("swap", *sides, "s", pairs=took, note=_SWAP_NOTE)
    rises = tuple(((start.words.resident - start.before.resident) / MIB, rise / MIB) for start, (_, rise) in both)
    yield Row("swap, rise of memory", *sides, "MiB", pairs=rises)


def _whole(start: Start) -> int:
    return max(start.loading.resident, start.words.resident)


def _second_instance(bench: Benchmark, system: System) -> tuple[float, int]:
    """Seconds, and growth of the resident peak, of loading recogniser and aligner beside a recogniser."""
    with Worker() as worker:
        worker.load(bench.model(), system)
        with PeakMemory(worker.pid) as peak:
            took_s = worker.load(bench.model(), system, bench.aligner)
            return took_s, peak.growth_bytes()
