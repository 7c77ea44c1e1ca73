"""One command, one table: `python -m devtools.bench`, with JSON beside it in build/bench.

Every figure is the median of pairs that were measured in turns: ours, and the way it is done today (today.py), or
our own backend at another commit, or a limit of this machine. Exit code 1 when a text was not what it is alone, or when
nothing could be measured; a goal that was missed is a figure like any other.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from devtools.bench import asking, git_revision, inner, starting
from devtools.bench.arguments import count, some_of
from devtools.bench.child import Failed
from devtools.bench.pairs import Row
from devtools.bench.plan import DEMO, FORMATS, RIVALS, Plan
from devtools.bench.shapes import ROOT, SHAPES
from devtools.bench.table import as_json, terminal

MEASURES: Mapping[str, Callable[[Plan], Iterator[Row]]] = {
    "health": starting.health,
    "load": starting.load,
    "swap": starting.swap,
    "clip": asking.clip,
    "long": asking.long,
    "crowd": asking.crowd,
    "aligner": inner.aligner,
    "wire": inner.wire,
    "decode": inner.decode,
    "compiled": inner.compiled,
    "gpu": asking.gpu,
}
_AGAINST_EARLIER = ("health", "load", "swap", "clip", "long", "crowd", "decode")


def main(argv: Sequence[str] | None = None) -> int:
    wanted = parse(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # or the servers would work on
    rows: list[Row] = []
    try:
        plan = Plan(
            shape=wanted.shape,
            runs=1 if wanted.quick else wanted.runs,
            long=wanted.long,
            is_quick=wanted.quick,
            formats=wanted.formats,
            earlier=git_revision.system(wanted.against) if wanted.against else None,
            rivals=wanted.rivals,
        )
        for name in wanted.only or (MEASURES if plan.with_today else _AGAINST_EARLIER):
            for row in MEASURES[name](plan):
                rows.append(row)
                _keep(rows, plan, wanted.out)  # whoever interrupts hours of measuring has what was measured
    except Failed as failure:
        print(f"bench: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: stopped", file=sys.stderr)
    if not rows:
        return 1
    print(terminal(rows, _preface(plan)), "", str(wanted.out), sep="\n")
    return 1 if any(row.mismatches for row in rows) or all(row.failure for row in rows) else 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench", description="How fast and how large, beside the way it is done today."
    )
    parser.add_argument("--shape", default=DEMO, choices=[DEMO, *SHAPES.keys() - {"aligner", "tiny-aligner"}])
    parser.add_argument("--runs", type=count, default=5, help="pairs for each figure; default: 5")
    parser.add_argument(
        "--only", type=some_of(MEASURES), default=(), help=f"of {', '.join(MEASURES)}, with commas; default: all"
    )
    parser.add_argument("--formats", type=some_of(FORMATS), default=(), help=f"of {', '.join(FORMATS)}, with commas")
    parser.add_argument("--against", metavar="REV", help="also our own backend at another commit")
    parser.add_argument(
        "--rivals", default="both", choices=RIVALS, help="earlier: with --against alone, and not with today's way"
    )
    parser.add_argument("--quick", action="store_true", help="one pair, nothing twice")
    parser.add_argument("--long", action="store_true", help="large models, too, get 20 minutes and 32 clips at once")
    parser.add_argument("--out", type=Path, default=ROOT / "build/bench/results.json")
    wanted = parser.parse_args(argv)
    if wanted.rivals == "earlier" and not wanted.against:
        parser.error("--rivals earlier needs --against REV")
    return wanted


def _preface(plan: Plan) -> str:
    what = "the demo's models" if plan.is_demo else f"random weights of the {plan.shape}'s size"
    processor = platform.processor() or platform.machine()
    return (
        f"{what}, {os.cpu_count()} × {processor}; median of {plan.runs} alternating pair(s).\n"
        "×: how many times faster, smaller or more; of it: ours as a part of what it is held against."
    )


def _keep(rows: Sequence[Row], plan: Plan, out: Path) -> None:
    found = {"shape": plan.shape, "runs": plan.runs, "processors": os.cpu_count(), "rows": as_json(rows)}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
