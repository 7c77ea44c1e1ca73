"""`make fuzz`: thousands of bad inputs through the running server, as a table; exit code 1 when a goal was missed.

A case that failed is saved in build/stress/failures and can be sent again (`--replay FILE`).
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from devtools.arguments import count, parse_arguments
from devtools.procfs import MIB
from devtools.server_process import ROOT
from devtools.stress.client import EXACT
from devtools.stress.fuzz_runner import Case, FuzzRunner, failures
from devtools.stress.odd_inputs import odd_inputs
from devtools.stress.profile import Profile
from devtools.stress.results import TESTS, Result, Results, Run, are_met, table


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    if arguments.replay:
        rows = replay(arguments.replay)
        print(table(rows, f"{arguments.replay} again"))
        return 0 if are_met(rows) else 1
    profile = Profile(cases=arguments.cases, seed=arguments.seed, brief=arguments.brief)
    header = f"{profile.cases} drawn cases with seed {profile.seed}; the worst time and memory of one input each."
    return Run(profile, arguments.out / "fuzz.json").main(TESTS, "fuzz", header)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="devtools.stress.fuzz", description="Bad inputs through the server.")
    parser.add_argument("--cases", type=count, default=Profile.cases, help="drawn at random; the hand-made come on top")
    parser.add_argument("--seed", type=int, default=Profile.seed)
    parser.add_argument("--brief", action="store_true", help="without the bombs")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="send one saved failure again")
    parser.add_argument("--out", type=Path, default=ROOT / "build/stress")
    return parse_arguments(parser, argv)


def replay(path: Path) -> list[Result]:
    results = Results("case")
    try:
        case = Case.of_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        results.check("", f"{path} is no saved case: {type(error).__name__}", "measured", False)
        return results.rows
    with tempfile.TemporaryDirectory(prefix="stress-") as name, FuzzRunner(Path(name), path.parent) as runner:
        if "{folder}" in case.path:
            odd_inputs(case.kind, runner.folder)  # for the files that paths lead to
        reply = runner.reply(case)
        golden = asyncio.run(runner.server.golden())
    wrong = failures(case, reply)
    results.check(case.kind, case.name)
    shown = f"{reply.status} {reply.details}; {reply.took_s:.2f} s; {max(reply.growth_bytes, 0) / MIB:.0f} MiB"
    results.check("answer", shown, case.expected, not wrong, "; ".join(wrong))
    results.measure = "golden request"
    results.check("after it", golden, EXACT, golden == EXACT)
    return results.rows


if __name__ == "__main__":
    sys.exit(main())
