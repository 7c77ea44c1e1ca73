"""Time and memory until a server is ready: its process, its model, and the aligner on the first request for words."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from devtools.bench import clips
from devtools.bench.benchmark import Benchmark
from devtools.bench.engine_worker import Worker
from devtools.bench.measurement import Goal, Row, alternate, figures
from devtools.bench.system import BASELINE, Server, System
from devtools.procfs import MIB, Memory, PeakMemory, memory, peak_resident_bytes
from devtools.server_process import DEMO_ALIGNER, DEMO_MODEL

_HEALTH_S = 0.5
_NOTHING = Memory(0, 0)
# A first load on top of torch: the rest of the imports, the model, one transcription of noise.
_TORCH_TIMES, _BEYOND_TORCH_MB = 2.5, 150.0
_IMPORT_TORCH = """
import time
began = time.perf_counter()
import torch
took_s = time.perf_counter() - began
import psutil
print(took_s, psutil.Process().memory_info().rss)
"""
_WHOLE_PROCESS = "the whole process, libraries included"


def health(bench: Benchmark, subject: System, rival: System) -> Iterator[Row]:
    """Seconds from the start of the process to its first Health, which no number format changes."""
    if subject is not bench.subjects[0]:
        return
    sides = [partial(_up_s, system) for system in (subject, rival)]
    alternate(1, *sides)  # reads their files into the page cache
    pairs, name = tuple(alternate(bench.runs, *sides, what=f"Health, {rival.name}")), rival.name.split()[0]
    goal = Goal("≥", 15) if rival is BASELINE else None
    yield Row("Health", "ours", name, "s", pairs=pairs, goal=goal, note=rival.note)
    if rival is BASELINE:
        half = tuple((ours, _HEALTH_S) for ours, _ in pairs)
        yield Row("Health", "ours", "half a second", "s", "share", half, Goal("≤", 1))


def _up_s(system: System) -> float:
    with Server(system) as server:
        return server.up_s


class Start(NamedTuple):
    """A server's start: `up_s` to Health, `load_s` of LoadModel, then the first two requests for words.

    Memory above the floor: peaks until the model is loaded and during the first request for words, and before that.
    """

    up_s: float
    load_s: float
    loading: Memory
    weight_bytes: int
    first_s: float = 0.0
    second_s: float = 0.0
    before: Memory = _NOTHING
    words: Memory = _NOTHING

    @property
    def loaded_s(self) -> float:
        return self.up_s + self.load_s

    @property
    def swap_s(self) -> float:
        return self.first_s - self.second_s


def _starts(bench: Benchmark, ours: System, theirs: System, what: str, *, words: bool) -> list[tuple[Start, Start]]:
    floors = [_NOTHING if bench.is_demo else _floor(system, words=words) for system in (ours, theirs)]
    sides = [partial(_start, bench, *side, words=words) for side in zip((ours, theirs), floors, strict=True)]
    return alternate(bench.runs, *sides, what=f"{what}, {ours.name} against {theirs.name}")


def _floor(system: System, *, words: bool) -> Memory:
    """What a process holds with everything imported, with `words` also for times, and 10 MB of weights."""
    with Server(system) as server:
        server.load_model(DEMO_MODEL, DEMO_ALIGNER if words else None)
        if words:
            server.transcribe(clips.clip(0), words=True)
        return memory(server.pid)


def _start(bench: Benchmark, system: System, floor: Memory, *, words: bool) -> Start:
    """A new process up to a loaded model; with `words`, up to the second request for words."""
    with Server(system) as server:
        with PeakMemory(server.pid) as peak:
            load_s = server.load_model(bench.model(), bench.aligner if words else None)
            loading = peak.memory()
        if not words:
            return Start(server.up_s, load_s, loading.above(floor), _weight_bytes(server))
        if system is not BASELINE:
            server.transcribe(clips.clip(0))  # a plain request never loads the aligner
        loading = Memory(peak_resident_bytes(server.pid), loading.anonymous)
        with PeakMemory(server.pid) as peak:
            first_s = server.seconds(clips.clip(0), words=True)
            during = peak.memory()
        second_s = server.seconds(clips.clip(0), words=True)
        held = [each.above(floor) for each in (peak.before, during)]
        return Start(server.up_s, load_s, loading.above(floor), _weight_bytes(server), first_s, second_s, *held)


def _weight_bytes(server: Server) -> int:
    return 0 if server.system is BASELINE else server.weight_bytes()  # which the baseline does not say


def load(bench: Benchmark, subject: System, rival: System) -> Iterator[Row]:
    """LoadModel in a new process: seconds, imports included, and peak memory.

    Peak memory is counted above what a process with the demo's model holds; in the demo's shape, whose weights are less
    than the libraries' own memory varies by, it is the whole process's, and compared with the earlier revision alone.
    """
    found, sides = _starts(bench, subject, rival, "LoadModel", words=False), (subject.name, rival.name)
    yield Row("LoadModel", *sides, "s", pairs=figures(found, lambda start: start.load_s), note=rival.note)
    yield Row("process start to loaded", *sides, "s", pairs=figures(found, lambda start: start.loaded_s))
    if bench.is_demo and rival is BASELINE:
        yield from _beyond_torch(bench, subject)
        return
    peaks, note = figures(found, lambda start: start.loading.resident / MIB), _WHOLE_PROCESS if bench.is_demo else ""
    yield Row("LoadModel, peak memory", *sides, "MiB", pairs=peaks, note=note)
    for kind, goal in (("resident", Goal("≤", 1.15)), ("anonymous", None)) if rival is BASELINE else ():
        shares = tuple((getattr(start.loading, kind) / MIB, start.weight_bytes / MIB) for start, _ in found)
        yield Row(f"LoadModel, peak {kind} memory", subject.name, "its weights", "MiB", "share", shares, goal)


def _beyond_torch(bench: Benchmark, subject: System) -> Iterator[Row]:
    """A server with the demo's model against a process that has imported torch and nothing else, in the same rounds."""
    loaded = partial(_loaded, bench, subject)
    alternate(1, loaded, _import_torch)  # reads their files into the page cache
    found = alternate(bench.runs, loaded, _import_torch, what=f"import torch, {subject.name}")
    times = figures(found, lambda each: each[0])
    yield Row("process start to loaded", subject.name, "import torch", "s", "share", times, Goal("≤", _TORCH_TIMES))
    beyond = tuple(((ours - torch) / 1e6, _BEYOND_TORCH_MB) for (_, ours), (_, torch) in found)
    limit, note = f"{_BEYOND_TORCH_MB:.0f} MB", "beyond what `import torch` holds"
    yield Row("loaded, memory", subject.name, limit, "MB", "share", beyond, Goal("≤", 1), note)


def _loaded(bench: Benchmark, system: System) -> tuple[float, int]:
    """Seconds from the start of a server's process to its loaded model, and the bytes that it then holds."""
    with Server(system) as server:
        load_s = server.load_model(bench.model())
        return server.up_s + load_s, memory(server.pid).resident


def _import_torch() -> tuple[float, int]:
    """Seconds of the import, and the bytes that the process then holds."""
    done = subprocess.run([sys.executable, "-c", _IMPORT_TORCH], capture_output=True, text=True, check=True)
    took_s, resident = done.stdout.split()
    return float(took_s), int(resident)


def swap(bench: Benchmark, subject: System, rival: System) -> Iterator[Row]:
    """The aligner is loaded by the first request for words; in bf16, or the first format without it.

    The baseline loads both models in LoadModel: compared from the start of the process to the first words. The request
    that swaps is compared with the earlier revision's, with the weights of both models and with a second instance.
    """
    if subject is not next((system for system in bench.subjects if system.name == "ours bf16"), bench.subjects[0]):
        return
    found = _starts(bench, subject, rival, "the swap", words=True)
    sides = (subject.name, f"{rival.name}, eager" if rival is BASELINE else rival.name)
    to_words_s = figures(found, lambda start: start.loaded_s + start.first_s)
    yield Row("process start to first words", *sides, "s", pairs=to_words_s, note=rival.note)
    swap_note = "first request for words less a later one"
    if rival is not BASELINE:
        yield Row("swap", *sides, "s", pairs=figures(found, lambda start: start.swap_s), note=swap_note)
    if bench.is_demo and rival is BASELINE:
        return
    peaks = figures(found, lambda start: max(start.loading.resident, start.words.resident) / MIB)
    yield Row("the same, peak memory", *sides, "MiB", pairs=peaks, note=_WHOLE_PROCESS if bench.is_demo else "")
    if rival is not BASELINE:
        return
    ours = [start for start, _ in found]
    for kind, goal in (("resident", Goal("≤", 1.05)), ("anonymous", None)):
        shares = tuple((getattr(start.words, kind) / MIB, start.weight_bytes / MIB) for start in ours)
        yield Row(f"swap, peak {kind} memory", subject.name, "both weights", "MiB", "share", shares, goal)
    both = list(zip(ours, [_second_instance(bench, subject) for _ in ours], strict=True))
    sides = (subject.name, "a second instance")
    took = tuple((start.swap_s, second_s) for start, (second_s, _) in both)
    yield Row("swap", *sides, "s", pairs=took, note=swap_note)
    rises = tuple(((start.words.resident - start.before.resident) / MIB, rise / MIB) for start, (_, rise) in both)
    yield Row("swap, rise of memory", *sides, "MiB", pairs=rises)


def _second_instance(bench: Benchmark, system: System) -> tuple[float, int]:
    """Seconds, and growth of the resident peak, of loading recogniser and aligner beside a recogniser."""
    with Worker() as worker:
        worker.load(bench.model(), system)
        with PeakMemory(worker.pid) as peak:
            return worker.load(bench.model(), system, bench.aligner), peak.growth_bytes()
