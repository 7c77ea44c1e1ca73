"""How long a run will take, said before it starts: by the last run on this machine, else by a table for the demo.

What each measure took is kept in build/bench/durations.json, by shape, number of rounds and of formats.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from devtools.bench.benchmark import Benchmark
from devtools.server_process import ROOT
from devtools.tables import write_json

DURATIONS = ROOT / "build/bench/durations.json"
# Seconds before the first round, and of each round, for the demo's models and all formats. Seen once with QUICK on two
# cores that others used, too; how it divides into start and rounds is chosen, not measured.
DEMO_S: Mapping[str, tuple[float, float]] = {
    "health": (13, 13), "load": (20, 95), "swap": (0, 28), "decode": (0, 10), "clip": (37, 2), "long": (40, 120),
    "crowd": (45, 12), "wire": (15, 0), "stream": (20, 30), "live": (300, 0), "aligner": (38, 2), "compiled": (70, 17),
    "gpu": (0, 0), "idle": (160, 0),
}  # fmt: skip


def expected(bench: Benchmark, names: Sequence[str], path: Path = DURATIONS) -> str:
    """A sentence."""
    known = _read(path)
    took = {name: known.get(key(bench, name)) for name in names}
    unknown = [name for name, seconds in took.items() if seconds is None]
    if unknown and not (bench.is_demo and not bench.on_gpu):
        return f"how long it takes is not known: {', '.join(unknown)} has never run here with these settings"
    share = len(bench.subjects) / 3
    guess = {name: share * (DEMO_S[name][0] + bench.runs * DEMO_S[name][1]) for name in unknown}
    minutes = sum(guess.values()) / 60 + sum(filter(None, took.values())) / 60
    source = "as the last time here" if not unknown else "on two cores; other machines differ"
    about = f"{minutes:.0f} min" if minutes >= 1.5 else f"{max(round(6 * minutes), 1) * 10} s"
    return f"about {about}, {source}"


def key(bench: Benchmark, name: str) -> str:
    """What a measure's time depends on."""
    rivals = sorted(system.name.split()[0] for system in bench.systems if system not in bench.subjects)
    beside = ",".join(dict.fromkeys([*rivals, *(peer.system.name for peer in bench.peers)]))
    return f"{name} {bench.shape} runs={bench.runs} formats={len(bench.subjects)} long={bench.long} beside={beside}"


def remember(bench: Benchmark, name: str, seconds: float, path: Path = DURATIONS) -> None:
    """For the next run."""
    write_json(path, _read(path) | {key(bench, name): round(seconds, 1)})


def _read(path: Path) -> dict[str, float]:
    """Empty where there is none, or no such file."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return {str(name): float(value) for name, value in found.items() if isinstance(value, int | float)}
    return {}
