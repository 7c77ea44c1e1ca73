"""What the fuzzing sends: the same for the same seed, saved and read back; and what it thinks of the answers."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from random import Random

import pytest

from devtools.stress.fuzz_runner import FILE_NAME, Case, Reply, failures, save
from devtools.stress.odd_inputs import CONTAINERS, ODD_INPUTS, containers
from devtools.stress.profile import Profile
from devtools.stress.strategies import KINDS, MUTATIONS, drawn_count, for_each_case, mutated

WAV = b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x80\x3e\0\0\0\x7d\0\0\2\0\x10\0data\0\x08\0\0" + bytes(range(256)) * 8


def sent(kind: str, folder: Path, cases: int, seed: int = 1) -> list[Case]:
    found: list[Case] = []
    for_each_case(kind, folder, Profile(cases=cases, seed=seed, brief=True), found.append)
    return found


def test_the_same_seed_sends_the_same_bytes(tmp_path: Path) -> None:
    first, again, other = (sent("mutated wav s16", tmp_path, 600, seed) for seed in (1, 1, 2))
    assert first == again
    assert [case.content for case in first] != [case.content for case in other]
    for kind in ("requests", "loads"):
        assert sent(kind, tmp_path, 100) == sent(kind, tmp_path, 100)


@pytest.mark.parametrize("name", MUTATIONS)
def test_every_mutation_takes_any_file(name: str) -> None:
    for number, file in itertools.product(range(40), (WAV, b"fLaC" + bytes(100), b"\0")):
        assert isinstance(mutated(name, Random(number), file, WAV), bytes)
    assert any(mutated(name, Random(number), WAV, WAV) != WAV for number in range(10))


def test_a_mutant_is_never_empty(tmp_path: Path) -> None:
    assert all(case.content for case in sent("mutated amr nb", tmp_path, 10_000))


def test_requests_and_loads_are_good_and_bad(tmp_path: Path) -> None:
    for kind, cases, count in (("requests", 533, 80), ("loads", 1200, 60)):
        drawn = sent(kind, tmp_path, cases)
        assert len(drawn) == count
        assert {case.expected for case in drawn} == {"good", "bad", "either"}
        assert all(case.load is (kind == "loads") for case in drawn)


def test_most_containers_can_be_written() -> None:
    assert len(containers()) >= 38, {*CONTAINERS} - {*containers()}
    assert all(containers().values())


def test_odd_cases_have_names_of_their_own(tmp_path: Path) -> None:
    cases = [case for kind in ODD_INPUTS if kind != "as they are" for case in sent(kind, tmp_path, 0)]
    assert len({(case.kind, case.name) for case in cases}) == len(cases) > 130
    assert not any(case.kind == "bombs" for case in cases)
    assert {case.kind for case in cases} == {*ODD_INPUTS} - {"as they are", "bombs"}


def test_as_many_cases_of_chance_as_were_asked_for(tmp_path: Path) -> None:
    assert sum(drawn_count(kind, 100) for kind in KINDS) == 100
    assert sum(len(sent(kind, tmp_path, 100)) for kind in KINDS if drawn_count(kind, 100)) == 100


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
        (EITHER, Reply("OK", 0.1, text="Heard.", violations=("a segment without its number or tokens",)), "a segment"),
        (Case("kind", "name", "good", text="Heard a."), Reply("OK", 0.1, text="Heard b."), "not the samples"),
        (EITHER, Reply("OK", 5.1, text="Heard."), "took 5.1 s"),
        (EITHER, Reply("OK", 0.1, 600 << 20, text="Heard."), "cost 600 MiB"),
        (BAD, Reply("INVALID_ARGUMENT", 0.1, details=f"cannot read {FILE_NAME}.wav"), "repeats the file's name"),
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
