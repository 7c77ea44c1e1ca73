"""Thousands of bad inputs through the running server: `make fuzz`, `python -m devtools.stress.fuzz`.

Hand-made cases are hypothesis' explicit examples, its strategies draw the others; the same seed and number of cases
send the same bytes. A case that failed is saved in build/stress/failures and can be sent again (`--replay FILE`). Exit
code 1 when a goal was missed.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import hypothesis
import pytest

from devtools.arguments import parse_arguments
from devtools.procfs import MIB
from devtools.server_process import ROOT
from devtools.stress.cases import MEMORY_LIMIT_MIB, TIME_LIMIT_S, Case, failures
from devtools.stress.client import EXACT
from devtools.stress.fuzz_runner import FuzzRunner
from devtools.stress.odd_inputs import CONTAINERS, ODD_INPUTS, containers
from devtools.stress.profile import Profile
from devtools.stress.results import Result, Results, Run, are_met, table
from devtools.stress.strategies import LOADS, REQUESTS, known_bad_loads, mutants

HAND_MADE = {**ODD_INPUTS, "known bad loads": known_bad_loads}
DRAWN = {"requests": REQUESTS, "loads": LOADS, **{f"mutated {name}": mutants(name) for name in CONTAINERS}}
KINDS = (*HAND_MADE, *DRAWN)
_SHARES = {"requests": 0.15, "loads": 0.05}  # of the drawn cases; the containers share the rest
_ORDER = ("OK", "INVALID_ARGUMENT", "refused")


@pytest.fixture(scope="module")
def runner(run: Run) -> Iterator[FuzzRunner]:
    saved = run.out.parent / "failures"
    with (
        tempfile.TemporaryDirectory(prefix="stress-") as folder,
        FuzzRunner(Path(folder), saved, run.profile.seed) as runner,
        runner.bystander,
    ):
        yield runner


@pytest.mark.fuzz
@pytest.mark.parametrize("kind", KINDS)
def test_inputs(kind: str, runner: FuzzRunner, profile: Profile, results: Results) -> None:
    first = len(runner.sent)
    for_each_case(kind, runner.folder, profile, runner.send)
    sent = runner.sent[first:]
    if not sent:
        pytest.skip("the short form has no bombs, and the installed wheels cannot write every container")
    counts = collections.Counter(each.reply.status for each in sent)
    statuses = sorted(counts, key=lambda status: (_ORDER.index(status) if status in _ORDER else len(_ORDER), status))
    slowest, largest = (
        max(sent, key=lambda each: each.reply.took_s),
        max(sent, key=lambda each: each.reply.growth_bytes),
    )
    failed = [each.failure for each in sent if each.failure]
    results.measure = kind
    results.check(
        f"{len(sent)} inputs",
        f"{', '.join(f'{counts[status]} {status}' for status in statuses)}; "
        f"{slowest.reply.took_s:.2f} s; {max(largest.reply.growth_bytes, 0) / MIB:.0f} MiB",
        "no failure", not failed, "; ".join([*failed[:5], *([f"and {len(failed) - 5} more"] if failed[5:] else [])]),
        outcomes=dict(counts), slowest_s=slowest.reply.took_s, slowest=slowest.case.name,
        most_bytes=largest.reply.growth_bytes, largest=largest.case.name, failures=failed,
    )  # fmt: skip


@pytest.mark.fuzz
async def test_the_server_after_all_inputs(runner: FuzzRunner, results: Results) -> None:
    results.measure = "all inputs"
    replies = [each.reply for each in runner.sent]
    results.none("deaths of the server", runner.restarts)
    results.none(f"longer than {TIME_LIMIT_S:g} s", sum(reply.took_s > TIME_LIMIT_S for reply in replies))
    large = sum(reply.growth_bytes > MEMORY_LIMIT_MIB * MIB for reply in replies)
    results.none(f"more than {MEMORY_LIMIT_MIB} MiB", large)
    results.measure, seen = "a bystander", runner.bystander
    results.none(f"inexact of {seen.answered}", len(seen.inexact), ", ".join(sorted(set(seen.inexact))))
    results.measure, golden = "golden request", await runner.server.golden()
    results.check("at the end", golden, EXACT, golden == EXACT)


def for_each_case(kind: str, folder: Path, profile: Profile, send: Callable[[Case], object]) -> None:
    """Sends the hand-made cases of the kind, and its share of the drawn ones."""
    hand_made = [] if kind not in HAND_MADE or (profile.brief and kind == "bombs") else [*HAND_MADE[kind](folder)]
    count = drawn_count(kind, profile.cases)
    phases = [hypothesis.Phase.explicit, *([hypothesis.Phase.generate] if count else [])]

    @hypothesis.seed(f"{profile.seed}/{kind}")
    @hypothesis.settings(max_examples=max(count, 1), phases=phases, database=None, deadline=None,
                         suppress_health_check=list(hypothesis.HealthCheck))  # fmt: skip
    @hypothesis.given(case=DRAWN.get(kind, REQUESTS))
    def test(case: Case) -> None:
        send(case)

    for case in reversed(hand_made):  # hypothesis runs the last one that was added first
        test = hypothesis.example(case=case)(test)
    if hand_made or count:
        test()


def drawn_count(kind: str, cases: int) -> int:
    """How many of all drawn `cases` are of the kind."""
    counts = {name: round(cases * share) for name, share in _SHARES.items()}
    share, left = divmod(cases - sum(counts.values()), len(containers()))
    counts |= {f"mutated {name}": share + (number < left) for number, name in enumerate(containers())}
    return counts.get(kind, 0)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    if arguments.replay:
        rows = replay(arguments.replay)
        print(table(rows, f"{arguments.replay} again"))
        return 0 if are_met(rows) else 1
    profile = Profile(cases=arguments.cases, seed=arguments.seed, brief=arguments.brief)
    header = f"{profile.cases} drawn cases with seed {profile.seed}; the worst time and memory of one input each."
    return Run(profile, arguments.out / "fuzz.json").main([Path(__file__)], header)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="devtools.stress.fuzz", description="Bad inputs through the server.")
    parser.add_argument("--cases", type=int, default=Profile.cases, help="drawn at random; the hand-made come on top")
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
            collections.deque(HAND_MADE[case.kind](runner.folder), maxlen=0)  # makes the files that paths lead to
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
