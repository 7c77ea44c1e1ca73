"""`make soak`: load, overload, cancellation, signals, faults and leaks, every measured value beside its goal.

The same as JSON in build/stress. Exit code 1 when a goal was missed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from devtools.arguments import parse_arguments, some_of
from devtools.server_process import ROOT
from devtools.stress.profile import Profile
from devtools.stress.results import TESTS, Run

GROUPS = ("load", "overload", "cancel", "stop", "orphans", "models", "machine", "engine", "memory", "streams", "live")
_COUNTS = {"streams": "at once", "requests": "during which memory is measured", "cancels": "in each stage",
           "kills": "of the gateway", "seed": "of all random choices"}  # fmt: skip


def main(argv: Sequence[str] | None = None, tests: Path = TESTS) -> int:
    arguments = parse(argv)
    chosen = {name: getattr(arguments, name) for name in _COUNTS}
    profile = Profile(load_s=arguments.minutes * 60, **chosen)
    header = f"{profile.streams} streams for {profile.load_s:g} s, {profile.requests} requests, seed {profile.seed}."
    return Run(profile, arguments.out, arguments.only).main(tests, "soak", header)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="devtools.stress.soak", description="Stress tests of the running server.")
    parser.add_argument("--minutes", type=float, default=0.5, help="of each sustained load; default: 0.5")
    for name, text in _COUNTS.items():
        parser.add_argument(f"--{name}", type=int, default=getattr(Profile, name), help=text)
    known = f"of {', '.join(GROUPS)}, with commas between them"
    parser.add_argument("--only", type=some_of(GROUPS), default=GROUPS, help=known)
    parser.add_argument("--out", type=Path, default=ROOT / "build/stress/soak.json")
    return parse_arguments(parser, argv)


if __name__ == "__main__":
    sys.exit(main())
