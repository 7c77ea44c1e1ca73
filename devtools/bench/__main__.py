"""One command, one table: `python -m devtools.bench`, with JSON beside it in build/bench.

Exit code 1 when a text was not what it is alone, or when nothing could be measured; a missed goal is a result.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from devtools.arguments import count, parse_arguments, some_of
from devtools.bench import git_revision, micro, startup, transcription
from devtools.bench.benchmark import DEMO, FORMATS, RIVALS, Benchmark
from devtools.bench.measurement import Failed, Row
from devtools.bench.shapes import SHAPES
from devtools.bench.table import as_json, terminal
from devtools.server_process import ROOT
from devtools.tables import write_json

MEASURES: Mapping[str, Callable[[Benchmark], Iterator[Row]]] = {
    "health": startup.health,
    "load": startup.load,
    "swap": startup.swap,
    "clip": transcription.clip,
    "long": transcription.long,
    "crowd": transcription.crowd,
    "aligner": micro.aligner,
    "wire": micro.wire,
    "decode": micro.decode,
    "compiled": micro.compiled,
    "gpu": transcription.gpu,
}
AGAINST_EARLIER = ("health", "load", "swap", "clip", "long", "crowd", "decode")


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # unwinds, which stops the servers
    rows: list[Row] = []
    try:
        bench = Benchmark(
            shape=arguments.shape,
            runs=1 if arguments.quick else arguments.runs,
            long=arguments.long,
            is_quick=arguments.quick,
            formats=arguments.formats,
            earlier=git_revision.system(arguments.against) if arguments.against else None,
            rivals=arguments.rivals,
        )
        for name in arguments.only or (MEASURES if bench.with_baseline else AGAINST_EARLIER):
            for row in MEASURES[name](bench):
                rows.append(row)  # written at once: an interrupted run keeps what it has measured
                found = {"shape": bench.shape, "runs": bench.runs, "processors": os.cpu_count(), "rows": as_json(rows)}
                write_json(arguments.out, found)
    except Failed as failure:
        print(f"bench: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: stopped", file=sys.stderr)
    if not rows:
        return 1
    print(terminal(rows, _preface(bench)), "", str(arguments.out), sep="\n")
    return 1 if any(row.mismatches for row in rows) or all(row.failure for row in rows) else 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description="Speed and size, beside today's way.")
    parser.add_argument("--shape", default=DEMO, choices=[DEMO, *SHAPES.keys() - {"aligner", "tiny-aligner"}])
    parser.add_argument("--runs", type=count, default=5, help="pairs for each figure; default: 5")
    parser.add_argument("--only", type=some_of(MEASURES), default=(), help=f"of {', '.join(MEASURES)}; default: all")
    parser.add_argument("--formats", type=some_of(FORMATS), default=(), help=f"of {', '.join(FORMATS)}, with commas")
    parser.add_argument("--against", metavar="REV", help="also our own backend at another git revision")
    parser.add_argument("--rivals", choices=RIVALS, default="both", help="earlier: only REV; today: all but REV")
    parser.add_argument("--quick", action="store_true", help="one pair, nothing twice")
    parser.add_argument("--long", action="store_true", help="large models, too, get 20 minutes and 32 clips at once")
    parser.add_argument("--out", type=Path, default=ROOT / "build/bench/results.json")
    arguments = parse_arguments(parser, argv)
    if arguments.rivals == "earlier" and not arguments.against:
        parser.error("--rivals earlier needs --against REV")
    return arguments


def _preface(bench: Benchmark) -> str:
    what = "the demo's models" if bench.is_demo else f"random weights of the {bench.shape}'s size"
    processor = platform.processor() or platform.machine()
    return (
        f"{what}, {os.cpu_count()} × {processor}; median of {bench.runs} alternating pair(s).\n"
        "×: how many times faster, smaller or more; of it: ours as a part of what it is held against."
    )


if __name__ == "__main__":
    sys.exit(main())
