"""What the table comes to, in words: goals met and missed, wrong texts, failures, and whether the machine was quiet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from devtools.bench.measurement import Goal, Row
from devtools.machine_load import Load
from devtools.tables import figure


def conclusion(rows: Sequence[Row], load: Load) -> str:
    """Sentences, one a line. `load`: of the whole run."""
    return "\n".join(["Verdict", *(f"  {sentence}" for sentence in _sentences(rows, load))])


def _sentences(rows: Sequence[Row], load: Load) -> Iterator[str]:
    judged = [row for row in rows if row.is_good is not None]
    missed, met = ([row for row in judged if row.is_good is good] for good in (False, True))
    if judged:
        yield f"{len(met)} of {len(judged)} goals met{'.' if missed else ': every one that could be judged.'}"
    else:
        yield "No row has a goal that could be judged."
    for row in missed:
        yield f"Missed: {_named(row)}: {_ratio(row)}."
    for row in met:
        if not _in_every_round(row):
            yield f"Met by the median, not in every round: {_named(row)}: {_ratio(row)}."
    once = sum(len(row.pairs) == 1 for row in judged)
    if once:
        yield f"{once} of them by one round, which may be chance: RUNS=5 says more."
    for row in rows:
        if row.mismatches:
            yield f"WRONG TEXTS: {_named(row)}: {row.mismatches}."
        if row.failure:
            yield f"Not measured: {_named(row)}: {row.failure}"
    yield _machine(rows, load)


def _machine(rows: Sequence[Row], load: Load) -> str:
    if not load.is_busy:
        return f"The times can be trusted ({load})."
    rows_then = sum(row.load is not None and row.load.is_busy for row in rows)
    where = f", at {rows_then} of {len(rows)} rows"
    return f"The machine was busy ({load}{where}): ratios compare, times and narrow misses do not."


def _named(row: Row) -> str:
    return f"{row.measure}, {row.ours}" + (f" against {row.theirs}" if row.theirs else "")


def _ratio(row: Row) -> str:
    assert row.spread is not None
    assert row.goal is not None
    rounds = f" ({figure(row.spread.least)} to {figure(row.spread.most)})" if len(row.pairs) > 1 else ""
    return f"{figure(row.spread.median)}{rounds}, {row.goal.bound} {row.goal.ratio:g} wanted"


def _in_every_round(row: Row) -> bool:
    goal: Goal | None = row.goal
    return goal is None or row.spread is None or all(map(goal.is_met, (row.spread.least, row.spread.most)))
