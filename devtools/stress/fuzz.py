"""Thousands of bad inputs through the running server: `python -m devtools.stress.fuzz`, `make fuzz`.

Seeded: the same seed and number of cases send the same bytes. What fails is saved in build/trials/failures with all
that it takes to send it again (`--replay FILE`). Exit code 1 when a goal was missed.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from devtools.stress import oddities, wishes
from devtools.stress.cases import Case, save
from devtools.stress.child import ROOT, Failed
from devtools.stress.containers import Source, sources
from devtools.stress.firing import Range
from devtools.stress.form import Form, sound_folder
from devtools.stress.lines import Line, are_met, as_json, failed, holds, none_of, terminal, told
from devtools.stress.mutations import mutated
from devtools.stress.processes import MIB
from devtools.stress.verdict import LONGEST_S, MOST_MIB, Reply, failures

OUT = ROOT / "build/trials"
_REQUESTS, _LOADS = 0.15, 0.05  # of the cases that chance makes; the rest are mutated files
_ORDER = {"OK": 0, "INVALID_ARGUMENT": 1, "refused": 1}


@dataclass
class EngineStats:
    """What came of one kind of input."""

    replies: list[tuple[str, Reply]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def line(self, kind: str) -> Line:
        counts = collections.Counter(reply.status for _, reply in self.replies)
        outcomes = ", ".join(f"{counts[s]} {s}" for s in sorted(counts, key=lambda s: (_ORDER.get(s, 2), s)))
        (slow, slowest), (large, largest) = (
            max(self.replies, key=lambda each: each[1].took_s),
            max(self.replies, key=lambda each: each[1].cost),
        )
        measured = f"{outcomes}; {slowest.took_s:.2f} s; {max(largest.cost, 0) / MIB:.0f} MiB"
        note = "; ".join(self.failures[:5]) + (f"; and {len(self.failures) - 5} more" if self.failures[5:] else "")
        return holds(
            kind, f"{len(self.replies)} inputs", measured, "no failure", not self.failures, note,
            outcomes=dict(counts), slowest_s=slowest.took_s, slowest=slow, most_bytes=largest.cost, largest=large,
            failures=self.failures,
        )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    wanted = parse(argv)
    lines: list[Line] = []
    try:
        lines = replayed(wanted.replay) if wanted.replay else fuzzed(wanted)
    except Failed as failure:
        lines = [failed("fuzz", str(failure))]
    except KeyboardInterrupt:
        print("fuzz: stopped", file=sys.stderr)
        return 1
    preface = f"{wanted.cases} cases of chance with seed {wanted.seed}; the worst time and memory of one input each."
    print(terminal(lines, f"{wanted.replay} again" if wanted.replay else preface))
    if not wanted.replay:
        wanted.out.mkdir(parents=True, exist_ok=True)
        path = wanted.out / "fuzz.json"
        told_ = {"cases": wanted.cases, "seed": wanted.seed, "lines": as_json(lines)}
        path.write_text(json.dumps(told_, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        print("", path, sep="\n")
    return 0 if are_met(lines) else 1


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="devtools.stress.fuzz", description="Bad inputs through the server.")
    parser.add_argument("--cases", type=int, default=2000, help="that chance makes; those made once come on top")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--brief", action="store_true", help="without the bombs")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="send one saved failure again")
    parser.add_argument("--out", type=Path, default=OUT)
    return parser.parse_args(argv)


def fuzzed(wanted: argparse.Namespace) -> list[Line]:
    form = Form(seed=wanted.seed)
    tallies: dict[str, EngineStats] = collections.defaultdict(EngineStats)
    with sound_folder() as folder, Range(folder) as range_:
        with range_.watched():
            for number, case in enumerate(all_cases(wanted, folder)):
                if number % 250 == 0:
                    form.say(f"case {number}: {case.kind}")
                reply = range_.fire(case)
                engine_stats = tallies[case.kind]
                engine_stats.replies.append((case.name, reply))
                if wrong := failures(case, reply):
                    saved = save(case, wanted.out / "failures", number, wanted.seed, wrong)
                    engine_stats.failures.append(f"{case.name}: {', '.join(wrong)} ({saved.name})")
        golden = range_.golden_is_exact()
    return [*(tallies[kind].line(kind) for kind in tallies), *_closing(tallies, range_, golden)]


def _closing(tallies: dict[str, EngineStats], range_: Range, golden: bool) -> Iterator[Line]:
    replies = [reply for engine_stats in tallies.values() for _, reply in engine_stats.replies]
    yield none_of("all inputs", "deaths of the server", range_.restarts)
    slow = sum(reply.took_s > LONGEST_S for reply in replies)
    yield none_of("all inputs", f"longer than {LONGEST_S:g} s", slow)
    yield none_of("all inputs", f"more than {MOST_MIB} MiB", sum(reply.cost > MOST_MIB * MIB for reply in replies))
    seen = range_.bystander
    yield none_of("a bystander", f"inexact of {seen.asked}", len(seen.inexact), ", ".join(sorted(set(seen.inexact))))
    yield holds("golden request", "at the end", "exact" if golden else "NOT EXACT", "exact", golden)


def all_cases(wanted: argparse.Namespace, folder: Path) -> Iterator[Case]:
    """Every container as it is, everything odd, and so many cases of chance."""
    made, left_out = sources()
    if left_out:
        print(f"not written by these wheels: {', '.join(left_out)}", file=sys.stderr)
    yield from (Case("as they are", source.kind, "good", source.content) for source in made)
    yield from oddities.cases(folder, is_brief=wanted.brief)
    requests, loads = round(wanted.cases * _REQUESTS), round(wanted.cases * _LOADS)
    yield from wishes.cases(wanted.seed, requests, loads)
    yield from mutants(made, wanted.seed, wanted.cases - requests - loads)


def mutants(made: Sequence[Source], seed: int, count: int) -> Iterator[Case]:
    """Each container in turn."""
    for number, source in zip(range(count), itertools.cycle(made)):
        chance = Random(f"{seed}/{number}")
        content, names = mutated(chance, source.content, chance.choice(made).content)
        yield Case(f"mutated {source.kind}", f"{number}: {names}", "either", content)


def replayed(path: Path) -> list[Line]:
    """Raises Failed when the file is no case."""
    try:
        case = Case.of_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Failed(f"{path} is no saved case: {type(error).__name__}") from error
    with sound_folder() as folder, Range(folder) as range_:
        if "{folder}" in case.path:
            collections.deque(oddities.cases(folder), maxlen=0)  # makes the files that paths lead to
        reply = range_.fire(case)
        golden = range_.golden_is_exact()
    wrong = failures(case, reply)
    shown = f"{reply.status} {reply.details}; {reply.took_s:.2f} s; {max(reply.cost, 0) / MIB:.0f} MiB"
    return [
        told("case", case.kind, case.name),
        holds("case", "answer", shown, case.expected, not wrong, "; ".join(wrong)),
        holds("golden request", "after it", "exact" if golden else "NOT EXACT", "exact", golden),
    ]


if __name__ == "__main__":
    sys.exit(main())
