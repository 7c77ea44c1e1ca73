"""Load, overload, cancellation, signals, faults and leaks, in minutes: `python -m devtools.stress.soak`, `make soak`.

One table, every measured value beside its goal; the same as JSON in build/trials. Exit code 1 when a goal was missed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

from devtools.bench.arguments import some_of
from devtools.stress import cancelling, damaged, growth, limits, load, overload, stopping, surviving
from devtools.stress.child import ROOT, Failed
from devtools.stress.form import Form
from devtools.stress.lines import Line, are_met, as_json, failed, holds, terminal
from devtools.stress.orphans import outlived_s

OUT = ROOT / "build/trials/soak.json"
_ORPHAN_S = 3.0


def orphans(form: Form) -> Iterator[Line]:
    """How long the backend outlives a parent that is killed at any moment."""
    form.say(f"orphans: {form.kills} kills of the parent")
    gone_s = outlived_s(form.kills, form.seed)
    longest = max(gone_s, default=float("inf"))
    shown = f"{longest:.2f} s at most, {len(gone_s)} kills"
    yield holds("orphans", "gone after", shown, f"≤ {_ORPHAN_S:g} s", longest <= _ORPHAN_S, seconds=gone_s)


Measure = Callable[[Form], Iterator[Line]]
MEASURES: Mapping[str, tuple[Measure, ...]] = {
    "load": (load.with_fakes, load.with_demo),
    "overload": (overload.measure,),
    "cancel": (cancelling.measure, cancelling.measure_demo),
    "stop": (stopping.measure_demo, stopping.measure_fakes),
    "orphans": (orphans,),
    "models": (surviving.measure, surviving.replaced, surviving.refused_load, damaged.measure),
    "machine": (
        limits.full_stderr,
        limits.closed_stderr,
        limits.no_descriptors,
        limits.no_memory,
        limits.killed_decoder,
    ),
    "engine": (limits.lost_device, limits.hanging_engine),
    "memory": (growth.measure,),
}


def main(argv: Sequence[str] | None = None, measures: Mapping[str, tuple[Measure, ...]] = MEASURES) -> int:
    wanted = parse(argv, measures)
    form = Form(
        load_s=wanted.minutes * 60,
        streams=wanted.streams,
        requests=round(wanted.requests),
        cancels=wanted.cancels,
        kills=wanted.kills,
        seed=wanted.seed,
    )
    lines: list[Line] = []
    try:
        for measure in chain.from_iterable(measures[name] for name in wanted.only):
            lines += measured(measure, form)
            _keep(lines, form, wanted.out)
    except KeyboardInterrupt:
        print("soak: stopped", file=sys.stderr)
        lines.append(failed("soak", "stopped"))
    preface = f"{form.streams} streams for {form.load_s:g} s, {form.requests} requests, seed {form.seed}."
    print(terminal(lines, preface), "", wanted.out, sep="\n")
    return 0 if are_met(lines) else 1


def measured(measure: Measure, form: Form) -> list[Line]:
    """The lines; behind those that came, one that says why there are no more."""
    lines: list[Line] = []
    try:
        lines.extend(measure(form))
    except Failed as failure:
        lines.append(failed(measure.__module__.removeprefix("trials."), str(failure)))
    return lines


def parse(argv: Sequence[str] | None, known: Iterable[str] = MEASURES) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="devtools.stress.soak", description="What breaks such a server.")
    parser.add_argument("--minutes", type=float, default=0.5, help="of each load that is held; default: 0.5")
    parser.add_argument("--streams", type=int, default=Form.streams, help="at once; default: 16")
    parser.add_argument("--requests", type=int, default=Form.requests, help="over which memory is watched")
    parser.add_argument("--cancels", type=int, default=Form.cancels, help="in each stage")
    parser.add_argument("--kills", type=int, default=Form.kills, help="of the parent")
    parser.add_argument("--seed", type=int, default=Form.seed)
    parser.add_argument(
        "--only", type=some_of(known), default=tuple(known), help=f"of {', '.join(known)}, with commas between them"
    )
    parser.add_argument("--out", type=Path, default=OUT)
    return parser.parse_args(argv)


def _keep(lines: Sequence[Line], form: Form, out: Path) -> None:
    """After every measure: whoever interrupts has what was measured."""
    out.parent.mkdir(parents=True, exist_ok=True)
    found = {"seed": form.seed, "streams": form.streams, "load_s": form.load_s, "lines": as_json(lines)}
    out.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
