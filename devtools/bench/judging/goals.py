"""What is wanted of a row that has no goal of its own: a general goal by what it is held against, or a note why none.

Against the package nothing may be slower, larger or later. Against an earlier commit nothing may be worse by more than
a tenth, which is what pairs of equal sides differ by on a shared machine. Peers may have another model: no goal.
"""

from __future__ import annotations

from dataclasses import replace

from devtools.bench.benchmark import Benchmark
from devtools.bench.measurement import Goal, Row
from devtools.bench.system import BASELINE

NO_WORSE, NEARLY = Goal("≥", 1), Goal("≥", 0.9)
NO_GOAL = "no goal: shown for what it costs"
# Measures in which the two sides do different things, and where they are compared instead.
NOT_COMPARABLE = {
    "LoadModel": "no goal: ours imports its libraries in it, today before its port; see process start to loaded"
}
_PACKAGE = (BASELINE.name, "the package")


def with_goal(bench: Benchmark, row: Row) -> Row:
    """The row as it is, where it has a goal or failed."""
    if row.goal is not None or row.failure:
        return row
    if row.theirs in {peer.system.name for peer in bench.peers}:
        return _noted(row, "no goal: another program, and maybe another model")
    if row.measure in NOT_COMPARABLE and row.theirs.startswith(_PACKAGE):
        return _noted(row, NOT_COMPARABLE[row.measure])
    if row.sense != "share" and row.theirs.startswith(_PACKAGE):
        return replace(row, goal=NO_WORSE)
    if row.sense != "share" and bench.earlier and row.theirs.startswith(bench.earlier.name):
        return replace(row, goal=NEARLY)
    return _noted(row, NO_GOAL)


def _noted(row: Row, note: str) -> Row:
    return replace(row, note="; ".join(filter(None, (row.note, note))))
