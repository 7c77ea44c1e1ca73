"""Memory and time of a model that is released for idleness and comes back: ten cycles in one process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median

from backend.wire import backend_pb2 as pb
from devtools.bench import clips
from devtools.bench.benchmark import Benchmark
from devtools.bench.measurement import Failed, Goal, Row, say
from devtools.bench.system import Server, System
from devtools.procfs import MIB, Memory, memory

CYCLES = 10
_IDLE_S = 1  # the least that the option takes
_PATIENCE_S = 60.0  # until the weights are released; the backend looks once a second
_WARM_RUNS = 3


@dataclass
class Cycles:
    """`before`: torch imported and nothing loaded. `reload_s`: of the request that loads; `warm_s`: of one after it."""

    before: Memory
    loaded: list[Memory] = field(default_factory=list)
    released: list[Memory] = field(default_factory=list)
    reload_s: list[float] = field(default_factory=list)
    warm_s: list[float] = field(default_factory=list)
    texts: set[str] = field(default_factory=set)


def idle(bench: Benchmark, subject: System) -> Iterator[Row]:
    """Resident memory after each release, beside that of the process before its first load; the reload's seconds.

    Both models are loaded each time: by a request for words.
    """
    say(f"idle release, {subject.name}: {CYCLES} cycles")
    found = _cycles(bench, subject)
    name, before = subject.name, "before the first load"
    loaded = tuple((each.resident / MIB, found.before.resident / MIB) for each in found.loaded)
    yield Row("idle, memory while loaded", name, before, "MiB", "share", loaded)
    for kind, goal in (("resident", Goal("≤", 1.15)), ("anonymous", None)):
        pairs = tuple((getattr(each, kind) / MIB, getattr(found.before, kind) / MIB) for each in found.released)
        note = "torch imported" if goal else "the same, without pages of files"
        yield Row(f"idle, {kind} memory after release", name, before, "MiB", "share", pairs, goal, note)
    half = CYCLES // 2
    early, late = (median(each.resident for each in part) for part in (found.released[:half], found.released[half:]))
    growth = ((late / MIB, early / MIB),)
    yield Row("idle, later releases", name, "earlier ones", "MiB", "share", growth, Goal("≤", 1.02), f"of {CYCLES}")
    took = tuple(zip(found.reload_s, found.warm_s, strict=True))
    mismatches = len(found.texts) - 1
    yield Row("idle, request that loads", name, "a later one", "s", "share", took, mismatches=mismatches)


def _cycles(bench: Benchmark, subject: System) -> Cycles:
    clip = clips.clip(0)
    with Server(subject) as server:
        _import_torch(server, bench)
        found = Cycles(memory(server.pid))
        server.load_model(bench.model(), bench.aligner, (*bench.options, f"idle_unload_seconds:{_IDLE_S}"))
        found.texts.add(server.transcribe(clip, words=True).text)
        for _ in range(CYCLES):
            found.released.append(_released(server))
            reply = server.transcribe(clip, words=True)
            found.reload_s.append(reply.took_s)
            found.texts.add(reply.text)
            found.warm_s.append(min(server.seconds(clip, words=True) for _ in range(_WARM_RUNS)))
            found.loaded.append(memory(server.pid))
        return found


def _import_torch(server: Server, bench: Benchmark) -> None:
    """By a load that is refused when torch and the engine are imported, before a weight is read. Raises Failed."""
    model = bench.model()
    absent = pb.ModelOptions(Model=model.name, ModelFile=str(model), MainGPU="9999", Options=["device:cuda"])
    if server.stub.LoadModel(absent, timeout=600.0).success:
        raise Failed("a GPU with the number 9999 was found")


def _released(server: Server) -> Memory:
    """Memory once the weights are gone. Raises Failed if they stay."""
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until:
        if not server.weight_bytes():
            return _settled(server)
        time.sleep(0.1)
    raise Failed("the weights were not released")


def _settled(server: Server) -> Memory:
    """Memory once it no longer falls: what was freed is given back right after the weights have gone."""
    before = memory(server.pid)
    while True:
        time.sleep(0.5)
        now = memory(server.pid)
        if before.resident - now.resident < MIB:
            return now
        before = now
