"""What the fuzzing sends: the same for the same seed, saved and read back; and what it thinks of the answers."""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from random import Random

import pytest

from devtools.stress import oddities, wishes
from devtools.stress.cases import Case, save
from devtools.stress.containers import Source, sources
from devtools.stress.fuzz import all_cases, mutants
from devtools.stress.mutations import MUTATIONS, mutated
from devtools.stress.verdict import OURS, Reply, failures

WAV = b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x80\x3e\0\0\0\x7d\0\0\2\0\x10\0data\0\x08\0\0" + bytes(range(256)) * 8


def test_the_same_seed_sends_the_same_bytes() -> None:
    source = [Source("wav", WAV), Source("other", WAV[::-1])]
    first, again, other = (list(mutants(source, seed, 60)) for seed in (1, 1, 2))
    assert first == again
    assert [case.content for case in first] != [case.content for case in other]
    assert wishes.cases(1, 30, 20).__next__() == wishes.cases(1, 30, 20).__next__()


@pytest.mark.parametrize("mutation", {*MUTATIONS}, ids=lambda mutation: mutation.__name__)
def test_every_mutation_takes_any_file(mutation) -> None:
    for number, file in itertools.product(range(40), (WAV, b"fLaC" + bytes(100), b"\0")):
        assert isinstance(mutation(Random(number), file, WAV), bytes)
    assert any(mutation(Random(number), WAV, WAV) != WAV for number in range(10))


def test_a_mutant_is_never_empty() -> None:
    assert all(mutated(Random(number), b"ab", b"cd")[0] for number in range(200))


def test_requests_and_loads_are_good_and_bad() -> None:
    drawn = [case for case in wishes.cases(1, 80, 60) if case.kind != "known bad loads"]
    assert len(drawn) == 140
    for is_load in (False, True):
        assert {case.expected for case in drawn if case.load is is_load} == {"good", "bad", "either"}


def test_most_containers_can_be_written() -> None:
    made, left_out = sources()
    assert len(made) >= 38, left_out
    assert all(source.content for source in made)


def test_odd_cases_have_names_of_their_own(tmp_path: Path) -> None:
    cases = list(oddities.cases(tmp_path, is_brief=True))
    assert len({(case.kind, case.name) for case in cases}) == len(cases) > 130
    assert not any(case.kind == "bombs" for case in cases)


def test_as_many_cases_of_chance_as_were_asked_for(tmp_path: Path) -> None:
    def count(cases: int) -> int:
        return sum(1 for _ in all_cases(argparse.Namespace(cases=cases, seed=1, brief=True), tmp_path))

    assert count(100) - count(40) == 60


def test_a_saved_case_reads_back_with_its_bytes_and_says_what_was_wrong(tmp_path: Path) -> None:
    case = Case("mutated wav", "7: cut", "either", bytes(range(256)), request={"prompt": "日本"})
    path = save(case, tmp_path / "failures", 7, 3, ["took 9 s"])
    assert Case.of_json(path.read_text()) == case
    assert path.name == "3-7.json"
    assert json.loads(path.read_text())["failures"] == ["took 9 s"]


GOOD, BAD, EITHER = (Case("kind", "name", expected) for expected in ("good", "bad", "either"))
LOAD = Case("loads", "name", "bad", load=True)


@pytest.mark.parametrize(
    ("case", "reply", "wrong"),
    [
        (GOOD, Reply("OK", 0.1, text="Heard."), ""),
        (BAD, Reply("INVALID_ARGUMENT", 0.1), ""),
        (BAD, Reply("RESOURCE_EXHAUSTED", 0.1), ""),
        (EITHER, Reply("INVALID_ARGUMENT", 0.1), ""),
        (LOAD, Reply("refused", 0.1), ""),
        (BAD, Reply("OK", 0.1, text="Heard."), "OK instead of"),
        (GOOD, Reply("INVALID_ARGUMENT", 0.1), "INVALID_ARGUMENT instead of OK"),
        (EITHER, Reply("INTERNAL", 0.1), "INTERNAL instead of"),
        (EITHER, Reply("OK", 0.1), "without having been transcribed"),
        (
            EITHER,
            Reply("OK", 0.1, text="Heard.", faults=("a segment without its number or tokens",)),
            "a segment",
        ),
        (
            Case("kind", "name", "good", text="Heard a."),
            Reply("OK", 0.1, text="Heard b."),
            "not the samples",
        ),
        (EITHER, Reply("OK", 5.1, text="Heard."), "took 5.1 s"),
        (EITHER, Reply("OK", 0.1, 600 << 20, text="Heard."), "cost 600 MiB"),
        (BAD, Reply("INVALID_ARGUMENT", 0.1, details=f"cannot read {OURS}.wav"), "repeats the file's name"),
        (BAD, Reply("INVALID_ARGUMENT", 0.1, details="Connection refused"), "evict"),
        (EITHER, Reply("UNAVAILABLE", 0.1, has_died=True), "the server died"),
        (LOAD, Reply("OK", 0.1), "OK instead of refused"),
        (LOAD, Reply("INTERNAL", 0.1), "INTERNAL instead of refused"),
    ],
)
def test_what_is_wrong_with_an_answer_is_said(case: Case, reply: Reply, wrong: str) -> None:
    said = "; ".join(failures(case, reply))
    assert wrong in said
    assert bool(said) == bool(wrong)
