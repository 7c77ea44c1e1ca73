"""What SYSTEMS means, and what is said about one that means nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from devtools.bench import git_revision
from devtools.bench.system import OURS
from devtools.eval import backend_client
from devtools.eval.__main__ import parse, specs_of
from devtools.eval.compare import runs
from devtools.eval.compare.specs import BACKEND, PACKAGE, Spec, SpecError, check, further
from devtools.eval.hypotheses import Hypothesis, Job, Run
from devtools.server_process import DEMO_ALIGNER, ServerFailed

FIRST = Spec(BACKEND, "some/model", "some/aligner", ("max_chunk_seconds:10", "vad:on"), "")


def test_a_system_is_the_first_one_but_for_what_it_names() -> None:
    int8, small, old, option, package = further(
        "int8: quantization=int8; small: model=x/y aligner=; old: rev=HEAD~5 ; vad-off: vad:off; package", FIRST
    )
    assert int8 == Spec("int8", "some/model", "some/aligner", FIRST.options, "int8")
    assert (small.model, small.aligner, small.options) == ("x/y", "", FIRST.options)
    assert (old.revision, old.quantization) == ("HEAD~5", "")
    assert option.options == ("max_chunk_seconds:10", "vad:off")
    assert (package.is_package, package.model) == (True, "some/model")
    assert [each.beside(FIRST) for each in (int8, small, old, option)] == [
        "quantization int8", "model x/y, aligner none", "commit HEAD~5", "vad:off",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("int8", '"int8" says nothing about the system'),
        ("a: modle=x", '"modle=x" of "a" is not known; known: model=, aligner=, quantization=, rev='),
        ("a:", '"a" is the first system again'),
        ("a: vad:on", '"a" is the first system again'),
        ("a: quantization=int8; a: vad:off", 'two systems "a"'),
        ("truth: vad:off", '"truth" is no name'),
        ("<b>: vad:off", '"<b>" is no name'),
        ("backend: vad:off", 'two systems "backend"'),
    ],
)
def test_what_is_wrong_with_systems_is_said(text: str, said: str) -> None:
    with pytest.raises(SpecError, match=r"^SYSTEMS: ") as caught:
        check([FIRST, *further(text, FIRST)])
    assert said in str(caught.value)


def names_of(argv: list[str]) -> list[str]:
    return [spec.name for spec in specs_of(parse(argv))]


def test_the_package_comes_once_by_either_name() -> None:
    assert names_of([]) == [BACKEND]
    assert names_of(["--baseline"]) == [BACKEND, PACKAGE]
    assert names_of(["--systems", "package; a: vad:off", "--baseline"]) == [BACKEND, PACKAGE, "a"]


def test_another_model_gets_no_aligner_of_the_demo() -> None:
    first, other = specs_of(parse(["--systems", "other: model=Qwen/Qwen3-ASR-0.6B"]))
    assert f"forced_aligner:{DEMO_ALIGNER}" in first.load().Options
    assert not any(option.startswith("forced_aligner:") for option in other.load().Options)


def test_a_further_system_that_does_not_load_fails_in_its_own_lane_and_the_first_ends_the_run() -> None:
    def refuse(jobs: object) -> Run:
        raise ServerFailed("the model was not loaded: no such quantisation")

    found = runs.run("int4", refuse, [Job("a", "a.wav"), Job("b", "b.wav")])
    failure = Hypothesis(failure="the model was not loaded: no such quantisation")
    assert found.hypotheses == {"a": failure, "b": failure}
    assert found.load is not None
    with pytest.raises(ServerFailed):
        runs.run(BACKEND, refuse, [])


def test_a_commit_that_is_not_there_is_an_error_before_anything_runs() -> None:
    with pytest.raises(SpecError, match="rev=no-such-commit of old"):
        runs.runners(further("old: rev=no-such-commit", specs_of(parse([]))[0]))


def test_another_commit_runs_by_its_own_command_in_its_own_folder(monkeypatch, tmp_path: Path) -> None:
    seen: list[object] = []
    monkeypatch.setattr(git_revision, "system", lambda rev: replace(OURS, command=("old", rev), folder=tmp_path))
    monkeypatch.setattr(backend_client, "run", lambda jobs, options, name, **more: seen.append((name, more)))
    runs.runners(further("old: rev=abc", specs_of(parse([]))[0]))["old"]([])
    assert seen == [("old", {"command": ("old", "abc"), "folder": tmp_path})]
