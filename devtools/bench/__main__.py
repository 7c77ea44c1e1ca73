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
from devtools.bench.live.live_rows import live_rows
from devtools.bench.live.stream_rows import stream_rows
from devtools.bench.measurement import Failed, Row
from devtools.bench.shapes import SHAPES
from devtools.bench.table import as_json, terminal
from devtools.server_process import ROOT, ServerFailed
from devtools.tables import write_json

# each takes the Benchmark and the sides that it compares: ours and a rival, ours alone, or all in one
_OF_CONTESTS = {"health": startup.health, "load": startup.load, "swap": startup.swap, "decode": micro.decode}
_OF_SUBJECTS = {"aligner": micro.aligner, "compiled": micro.compiled, "gpu": transcription.gpu}
_OF_ALL = {"clip": transcription.clip, "long": transcription.long, "crowd": transcription.crowd, "wire": micro.wire,
           "stream": stream_rows, "live": live_rows}  # fmt: skip
MEASURES: Mapping[str, Callable[..., Iterator[Row]]] = _OF_CONTESTS | _OF_ALL | _OF_SUBJECTS
_ROWS = tuple(str(1 << power) for power in range(9))
AGAINST_EARLIER = ("health", "load", "swap", "clip", "long", "crowd", "decode")


def main(argv: Sequence[str] | None = None) -> int:
    asked = parse(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # unwinds, which stops the servers
    rows: list[Row] = []
    try:
        earlier = git_revision.system(asked.against) if asked.against else None
        runs = 1 if asked.quick else asked.runs
        graphs = asked.graphs == "on"
        bench = Benchmark(
            asked.shape, runs, asked.long, asked.formats, earlier, asked.rivals, tuple(map(int, asked.rows)), graphs
        )
        for name in asked.only or (MEASURES if bench.with_baseline else AGAINST_EARLIER):
            for row in _measured(bench, name):
                rows.append(row)  # written at once: an interrupted run keeps what it has measured
                found = {"shape": bench.shape, "runs": runs, "processors": os.cpu_count(), "rows": as_json(rows)}
                write_json(asked.out, found)
    except Failed as failure:
        print(f"bench: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: stopped", file=sys.stderr)
    if not rows:
        return 1
    print(terminal(rows, _preface(bench)), "", str(asked.out), sep="\n")
    return 1 if any(row.mismatches for row in rows) or all(row.failure for row in rows) else 0


def _measured(bench: Benchmark, name: str) -> Iterator[Row]:
    """The rows of one measure, and where a side fails one that says why."""
    every = [()] if name in _OF_ALL else bench.contests if name in _OF_CONTESTS else [(s,) for s in bench.subjects]
    for sides in every:
        try:
            yield from MEASURES[name](bench, *sides)
        except (Failed, ServerFailed) as failure:
            ours, theirs, *_ = (*(side.name for side in sides), "", "")
            yield Row(name, ours, theirs, failure=str(failure))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description="Speed and size, beside today's way.")
    parser.add_argument("--shape", default=DEMO, choices=[DEMO, *(s for s in SHAPES if "aligner" not in s)])
    parser.add_argument("--runs", type=count, default=5, help="pairs for each figure; default: 5")
    parser.add_argument("--only", type=some_of(MEASURES), default=(), help=f"of {', '.join(MEASURES)}; default: all")
    parser.add_argument("--formats", type=some_of(FORMATS), default=(), help=f"of {', '.join(FORMATS)}, with commas")
    parser.add_argument("--against", metavar="REV", help="also our own backend at another git revision")
    parser.add_argument("--rivals", choices=RIVALS, default="both", help="earlier: only REV; today: all but REV")
    parser.add_argument("--quick", action="store_true", help="one pair for each figure")
    parser.add_argument("--long", action="store_true", help="large models, too, get 20 minutes and 32 clips at once")
    parser.add_argument("--rows", type=some_of(_ROWS), default=(), help="batch sizes of the gpu measure, with commas")
    parser.add_argument("--graphs", choices=["on", "off"], default="on", help="CUDA graphs of ours; default: on")
    parser.add_argument("--out", type=Path, default=ROOT / "build/bench/results.json")
    asked = parse_arguments(parser, argv)
    if asked.rivals == "earlier" and not asked.against:
        parser.error("--rivals earlier needs --against REV")
    return asked


def _preface(bench: Benchmark) -> str:
    what = "the demo's models" if bench.is_demo else f"random weights of the {bench.shape}'s size"
    processor = platform.processor() or platform.machine()
    return (
        f"{what}, {os.cpu_count()} × {processor}; median of {bench.runs} alternating pair(s).\n"
        "×: how many times faster, smaller or more; of it: ours as a part of what it is held against."
    )


if __name__ == "__main__":
    sys.exit(main())
