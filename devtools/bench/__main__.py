"""One command, one table: `python -m devtools.bench`, with JSON beside it in build/bench.

Exit code 1 when a text was not what it is alone, or when nothing could be measured; a missed goal is a result.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from devtools.arguments import count, parse_arguments, some_of
from devtools.bench import clips, git_revision, idle_memory, micro, startup, transcription
from devtools.bench.benchmark import DEMO, FORMATS, RIVALS, Benchmark
from devtools.bench.judging.conclusion import conclusion
from devtools.bench.judging.expected_time import expected, remember
from devtools.bench.judging.goals import with_goal
from devtools.bench.live.live_rows import live_rows
from devtools.bench.live.stream_rows import stream_rows
from devtools.bench.measurement import Failed, Row
from devtools.bench.peers import command_peers, url_peers
from devtools.bench.shapes import SHAPES
from devtools.bench.table import as_json, terminal
from devtools.machine_load import LoadWatch, busiest
from devtools.server_process import ROOT, ServerFailed
from devtools.tables import write_json

# each takes the Benchmark and the sides that it compares: ours and a rival, ours alone, or all in one
_OF_CONTESTS = {"health": startup.health, "load": startup.load, "swap": startup.swap, "decode": micro.decode}
_OF_SUBJECTS = {
    "aligner": micro.aligner,
    "compiled": micro.compiled,
    "gpu": transcription.gpu,
    "idle": idle_memory.idle,
}
_OF_ALL = {"clip": transcription.clip, "long": transcription.long, "crowd": transcription.crowd, "wire": micro.wire,
           "stream": stream_rows, "live": live_rows}  # fmt: skip
MEASURES: Mapping[str, Callable[..., Iterator[Row]]] = _OF_CONTESTS | _OF_ALL | _OF_SUBJECTS
_ROWS = tuple(str(1 << power) for power in range(9))
OF_PEERS = ("clip", "long", "crowd")
AGAINST_EARLIER = ("health", "load", "swap", "clip", "long", "crowd", "decode")


def main(argv: Sequence[str] | None = None) -> int:
    asked = parse(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # unwinds, which stops the servers
    rows: list[Row] = []
    watch = LoadWatch()
    try:
        bench = _benchmark(asked)
        names = asked.only or measures_of(bench)
        _before(bench, names)
        watch = LoadWatch()
        for row in _all(bench, names):
            rows.append(row)  # written at once: an interrupted run keeps what it has measured
            found = {"shape": bench.shape, "runs": bench.runs, "processors": os.cpu_count(), "rows": as_json(rows)}
            write_json(asked.out, found | {"load": watch.load()._asdict()})
    except Failed as failure:
        print(f"bench: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: stopped", file=sys.stderr)
    if not rows:
        return 1
    print(terminal(rows, _preface(bench)), "", conclusion(rows, watch.load()), "", str(asked.out), sep="\n")
    return 1 if any(row.mismatches for row in rows) or all(row.failure for row in rows) else 0


def _benchmark(asked: argparse.Namespace) -> Benchmark:
    """What the arguments ask for, each peer tried once. Raises Failed."""
    peers = (*url_peers(asked.peers), *command_peers(asked.peer_command))
    for peer in peers:
        peer.transcribe(clips.clip(0))  # also loads its model
    earlier = git_revision.system(asked.against) if asked.against else None
    runs, rows = 1 if asked.quick else asked.runs, tuple(map(int, asked.rows))
    return Benchmark(
        asked.shape, runs, asked.long, asked.formats, earlier, asked.rivals, rows, asked.graphs == "on", peers
    )


def measures_of(bench: Benchmark) -> Sequence[str]:
    """All that the rivals have, which is what is measured unless names are given."""
    if bench.with_baseline:
        return tuple(MEASURES)
    return OF_PEERS if bench.rivals == "peers" else AGAINST_EARLIER


def _before(bench: Benchmark, names: Sequence[str]) -> None:
    """How long it will take, and whether the machine is busy."""
    print(f"bench: {', '.join(names)}: {expected(bench, names)}", file=sys.stderr)
    watch, others = LoadWatch(), busiest()
    if (load := watch.load()).is_busy:
        most = ", ".join(f"{name} {used:.1f}" for name, used in others)
        remedy = "times will be long and spreads wide; better wait until it is quiet"
        print(f"bench: {load}{f' ({most})' if most else ''}; {remedy}", file=sys.stderr)


def _all(bench: Benchmark, names: Sequence[str]) -> Iterator[Row]:
    for name in names:
        began, watch = time.monotonic(), LoadWatch()
        for row in _measured(bench, name):
            yield replace(with_goal(bench, row), load=watch.load())
        remember(bench, name, time.monotonic() - began)


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
    parser.add_argument(
        "--rivals", choices=RIVALS, default="both", help="earlier: only REV; today: no REV; peers: only they"
    )
    parser.add_argument("--peers", default="", help="NAME=URL[#MODEL] of servers with OpenAI's API, beside ours")
    parser.add_argument("--peer-command", default="", help="NAME=COMMAND with {audio} in it, which prints the text")
    parser.add_argument("--quick", action="store_true", help="one pair for each figure")
    parser.add_argument("--long", action="store_true", help="large models, too, get 20 minutes and 32 clips at once")
    parser.add_argument("--rows", type=some_of(_ROWS), default=(), help="batch sizes of the gpu measure, with commas")
    parser.add_argument("--graphs", choices=["on", "off"], default="on", help="CUDA graphs of ours; default: on")
    parser.add_argument("--out", type=Path, default=ROOT / "build/bench/results.json")
    asked = parse_arguments(parser, argv)
    if asked.rivals == "earlier" and not asked.against:
        parser.error("--rivals earlier needs --against REV")
    if asked.rivals == "peers" and not (asked.peers or asked.peer_command):
        parser.error("--rivals peers needs --peers or --peer-command")
    return asked


def _preface(bench: Benchmark) -> str:
    what = "the demo's models" if bench.is_demo else f"random weights of the {bench.shape}'s size"
    processor = platform.processor() or platform.machine()
    return (
        f"{what}, {os.cpu_count()} × {processor}; median (least–most) of"
        f" {bench.runs} alternating pair{'s'[: bench.runs > 1]}.\n"
        "×: how many times faster, smaller or more; of it: ours as a part of what it is held against."
    )


if __name__ == "__main__":
    sys.exit(main())
