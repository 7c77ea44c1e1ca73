"""make's variables as arguments."""

from __future__ import annotations

import argparse

import pytest

from devtools.arguments import count, from_environment, parse_arguments, some_of, unknown_variable


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tool")
    parser.add_argument("--audio", default="demo.wav")
    parser.add_argument("--aligner")
    parser.add_argument("--runs", type=count, default=5)
    parser.add_argument("--shape", choices=["demo", "0.6b"], default="demo")
    parser.add_argument("--option", "--options", action="append", default=[])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", type=some_of(("clip", "crowd")), default=())
    return parser


@pytest.fixture
def under_make(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("MAKELEVEL", "1")
    monkeypatch.delenv("MAKEFLAGS", raising=False)
    monkeypatch.setattr("sys.argv", ["tool"])
    return monkeypatch


def test_variables_are_arguments_and_the_rest_keeps_its_default(parser, under_make) -> None:
    under_make.setenv("AUDIO", "a b'c\".wav")
    under_make.setenv("ALIGNER", "")
    under_make.setenv("OPTIONS", "vad:off times:on")
    under_make.setenv("HELP", "1")
    found = parse_arguments(parser, None)
    assert (found.audio, found.aligner, found.runs) == ("a b'c\".wav", "", 5)
    assert found.option == ["vad:off times:on"]


@pytest.mark.parametrize(("value", "is_set"), [("1", True), ("yes", True), ("0", False), ("", False)])
def test_a_flag_is_set_by_anything_but_nothing_and_0(parser, value: str, is_set: bool) -> None:
    assert parser.parse_args(from_environment(parser, {"QUICK": value})).quick is is_set


def test_real_arguments_win(parser, under_make) -> None:
    under_make.setenv("RUNS", "3")
    under_make.setattr("sys.argv", ["tool", "--runs", "4"])
    assert parse_arguments(parser, None).runs == 4


@pytest.mark.parametrize("variables", [{"RUNS": "0"}, {"RUNS": ""}, {"SHAPE": "7b"}, {"ONLY": "clip,clop"}])
def test_a_variable_is_checked_as_its_argument_is(parser, under_make, capsys, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        under_make.setenv(name, value)
    with pytest.raises(SystemExit):
        parse_arguments(parser, None)
    printed = capsys.readouterr().err
    assert printed.startswith(f"tool: {next(iter(variables))}: ")
    assert printed.count("\n") == 1


def test_without_make_the_environment_does_not_count(parser, under_make) -> None:
    under_make.setenv("RUNS", "3")
    assert parse_arguments(parser, []).runs == 5
    under_make.delenv("MAKELEVEL")
    assert parse_arguments(parser, None).runs == 5


def test_names_stand_between_commas(parser) -> None:
    assert parser.parse_args(["--only", "clip, crowd"]).only == ("clip", "crowd")


@pytest.mark.parametrize(
    ("makeflags", "named"),
    [
        (" -- RUN=3", "RUN is no variable of this command; did you mean RUNS? It has ALIGNER, AUDIO, ONLY, OPTION"),
        ("s -- ADUIO=a.wav RUNS=3", "ADUIO is no variable of this command; did you mean AUDIO?"),
        (r" -- AUDIO=a\ b.wav zzz=1", "zzz is no variable of this command. It has"),
        (" -- RUNS=3 AUDIO=x BUILD_TYPE=cublas PIP_INDEX_URL=y", ""),
        (r" -- AUDIO=a\ RUN=3.wav", ""),
        ("s", ""),
        ("", ""),
    ],
)
def test_a_variable_that_the_tool_does_not_have_is_named(parser, makeflags: str, named: str) -> None:
    found = unknown_variable(parser, makeflags)
    assert found.startswith(named)
    assert bool(found) == bool(named)


def test_an_unknown_variable_ends_the_tool(parser, under_make, capsys) -> None:
    under_make.setenv("MAKEFLAGS", " -- FORMT=srt")
    with pytest.raises(SystemExit):
        parse_arguments(parser, None)
    assert "FORMT is no variable of this command" in capsys.readouterr().err
