"""Load, overload, cancellation, signals, faults and leaks, in minutes: `make soak`, `python -m devtools.stress.soak`.

Runs the tests with the marker `soak(group)` and prints every measured value beside its goal; the same as JSON in
build/stress. Exit code 1 when a goal was missed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from devtools.arguments import parse_arguments, some_of
from devtools.server_process import ROOT
from devtools.stress.profile import Profile
from devtools.stress.results import TESTS, Run

GROUPS = ("load", "overload", "cancel", "stop", "orphans", "models", "machine", "engine", "memory")


class Selection:
    """A pytest plugin: the tests of some groups, in the order of the groups."""

    def __init__(self, groups: Sequence[str]) -> None:
        self._groups = groups

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        marks = {item: [mark.args for mark in item.iter_markers("soak")] for item in items}
        items[:] = [item for group in self._groups for item, args in marks.items() if (group,) in args]


def main(argv: Sequence[str] | None = None, tests: Path = TESTS) -> int:
    arguments = parse(argv)
    chosen = {name: getattr(arguments, name) for name in ("streams", "requests", "cancels", "kills", "seed")}
    profile = Profile(load_s=arguments.minutes * 60, **chosen)
    header = f"{profile.streams} streams for {profile.load_s:g} s, {profile.requests} requests, seed {profile.seed}."
    return Run(profile, arguments.out).main(tests, "soak", header, Selection(arguments.only))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="devtools.stress.soak", description="Stress tests of the running server.")
    parser.add_argument("--minutes", type=float, default=0.5, help="of each sustained load; default: 0.5")
    parser.add_argument("--streams", type=int, default=Profile.streams, help="at once; default: 16")
    parser.add_argument("--requests", type=int, default=Profile.requests, help="during which memory is measured")
    parser.add_argument("--cancels", type=int, default=Profile.cancels, help="in each stage")
    parser.add_argument("--kills", type=int, default=Profile.kills, help="of the gateway")
    parser.add_argument("--seed", type=int, default=Profile.seed)
    known = f"of {', '.join(GROUPS)}, with commas between them"
    parser.add_argument("--only", type=some_of(GROUPS), default=GROUPS, help=known)
    parser.add_argument("--out", type=Path, default=ROOT / "build/stress/soak.json")
    return parse_arguments(parser, argv)


if __name__ == "__main__":
    sys.exit(main())
