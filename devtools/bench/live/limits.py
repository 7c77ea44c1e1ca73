"""The figures that are wanted of streams and of live transcription, and rows that hold what was measured against them.

Each limit is for the demo's models, for a published size on a CPU, and for a GPU; None: not wanted there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from devtools.bench.benchmark import FORMATS, Benchmark
from devtools.bench.measurement import Goal, Row
from devtools.bench.system import System

LIMITS: dict[str, tuple[str, float | None, float | None, float | None]] = {
    "first delta after the detector": ("ms", 60, None, None),
    "longest gap between deltas": ("s", 0.2, None, 0.1),
    "lag of words, p50": ("s", 1.8, 3.0, 1.2),
    "lag of words, p95": ("s", 2.5, 5.0, 1.8),
    "speech to its first delta, p50": ("s", 2.1, 3.5, 1.5),
    "speech to its first delta, p95": ("s", 2.6, 5.0, 2.2),
    "end of speech to its last delta, p95": ("s", 0.9, 2.0, 0.8),
    "half-close in a pause to the final, p95": ("s", 0.03, 0.05, 0.03),
    "half-close in speech to the final, p95": ("s", 0.3, 2.0, 0.3),
    "ready, p99": ("ms", 20, 20, 20),
    "ready beside 8 files, p99": ("ms", 50, 50, 50),
    "CPU while somebody speaks": ("% of a core", 8, 160, None),
    "CPU in silence": ("% of a core", 2, 2, None),
    "streams at once, lag of words, p95": ("s", 3, 3, 3),
    "Health meanwhile, p99": ("s", 0.1, 0.1, 0.1),
    "messages in a second": ("", 5, 5, 5),
    "most messages in 300 ms": ("", 10, 10, 10),
    "lag of words beside 8 files less alone, p95": ("s", 0.5, 2.5, 0.3),
    "throughput of 8 files that a stream costs": ("%", 15, 60, 10),
    "memory from minute 2 to the last": ("MiB", 2, 2, 2),
}
_INT8_LIMITS = {"lag of words, p50": 2.5, "lag of words, p95": 4.0, "CPU while somebody speaks": 100.0}


def the_subject(bench: Benchmark) -> System:
    """One number format, because paced runs last as long as what they hear: the first that was asked for, or bf16."""
    return FORMATS[bench.formats[0] if bench.formats else "bf16"]


def held_to(bench: Benchmark, what: str, measured: Sequence[float], note: str = "") -> Iterator[Row]:
    """A row of one figure, measured once or several times; none without a measurement."""
    unit, demo, cpu, gpu = LIMITS[what]
    subject = the_subject(bench)
    limit = gpu if bench.on_gpu else demo if bench.is_demo else cpu
    if subject.quantization and not bench.is_demo and not bench.on_gpu:
        limit = _INT8_LIMITS.get(what, limit)
    if measured:
        against = f"{limit:g} {unit}".strip() if limit else ""
        pairs = tuple((each, limit or each) for each in measured)
        yield Row(what, subject.name, against, unit, "share", pairs, Goal("≤", 1) if limit else None, note)
