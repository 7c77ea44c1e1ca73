"""The short form of `make soak`: what is counted is asserted; times are printed, because a busy machine breaks them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from devtools.stress import cancelling, growth, limits, load, overload, soak, stopping, surviving
from devtools.stress.form import Form
from devtools.stress.lines import Line
from devtools.stress.plan import Plan

CLEANUP_S = 10.0  # for a slot that is wanted within one


def counted(lines: Iterable[Line]) -> dict[str, Line]:
    """The lines by what they say, printed; all that count something are met."""
    found = {line.what: line for line in lines}
    for line in found.values():
        print(f"{line.measure}: {line.what}: {line.measured} {line.goal} {line.note}")
    missed = [line for line in found.values() if line.is_met is False and not line.measured.endswith(" s")]
    assert not missed
    return found


def test_a_load_loses_nothing_and_mixes_nothing_up(form: Form) -> None:
    lines = counted(load.with_fakes(form))
    assert lines["sent"].figures["exact"] >= 20


def test_an_overload_is_refused_and_nothing_else(form: Form) -> None:
    lines = counted(overload.measure(form))
    assert "RESOURCE_EXHAUSTED" in lines["arrived"].measured
    assert lines["arrived"].figures["answered"] >= 8


def test_a_client_that_leaves_frees_its_slot(form: Form) -> None:
    lines = counted(cancelling.measure(form))
    assert len(lines) == len(cancelling.STAGES)
    assert all(line.figures["value"] < CLEANUP_S for line in lines.values())


def test_sigterm_loses_nothing_that_can_finish(form: Form) -> None:
    lines = counted(stopping.measure_fakes(form, never_end=0))
    assert lines["exit"].figures["value"] < 10  # the grace: nothing was left to wait for


@pytest.fixture(scope="module")
def struck(form: Form) -> dict[str, Line]:
    return {line.what: line for line in surviving.measure(form)}


@pytest.mark.parametrize(
    "injected",
    [trial.injected for trial in surviving.TRIALS],
)
def test_a_fault_of_a_model_touches_the_victim_alone(struck: dict[str, Line], injected: str) -> None:
    line = struck[injected]
    assert line.is_met, (line.measured, line.goal, line.note)


@pytest.mark.parametrize(
    "fault",
    [
        surviving.refused_load,
        surviving.replaced,
        limits.full_stderr,
        limits.closed_stderr,
        limits.no_descriptors,
        limits.killed_decoder,
        limits.lost_device,
        limits.hanging_engine,
    ],
    ids=lambda fault: fault.__name__,
)
def test_a_fault_of_the_machine_is_survived(form: Form, fault: soak.Measure) -> None:
    counted(fault(form))


def test_memory_does_not_grow_and_a_build_that_leaks_is_caught(form: Form) -> None:
    steady = growth.grown(Plan(steps=2), form.requests)
    leaking = growth.grown(Plan(steps=2, leaks=True), form.requests // 2)
    print(f"per 1000 requests: {growth.mib(steady.slope):.1f} MiB, with a leak {growth.mib(leaking.slope):.0f} MiB")
    assert (steady.inexact, leaking.inexact) == (0, 0)
    assert max(steady.descriptors, 0) == max(steady.children, 0) == 0
    assert growth.mib(leaking.slope) > 60  # the samples alone are 122
    assert growth.mib(steady.slope) < 30  # in a run as short as this, one arena of the allocator's is a slope


def test_the_command_keeps_what_it_measured_and_says_whether_all_goals_were_met(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = Line("a", "b", "0", "0", True), Line("a", "c", "1", "0", False)
    measures = {"good": (lambda form: iter([good]),), "bad": (lambda form: iter([good, bad]),)}
    out = tmp_path / "build/soak.json"
    assert soak.main(["--only", "good", "--out", str(out)], measures) == 0
    assert "1 of 1 goals met" in capsys.readouterr().out
    assert soak.main(["--only", "good,bad", "--out", str(out)], measures) == 1
    assert [line["is_met"] for line in json.loads(out.read_text())["lines"]] == [True, True, False]
    with pytest.raises(SystemExit):
        soak.parse(["--only", "nothing"], measures)
    assert "nothing is not known; there are good, bad" in capsys.readouterr().err


def test_a_server_that_does_not_start_is_a_line_and_not_the_end() -> None:
    def broken(form: Form) -> Iterable[Line]:
        yield Line("a", "b", "0")
        with soak.load.Child(("false",)):
            raise AssertionError

    first, second = soak.measured(broken, Form(is_quiet=True))
    assert first.what == "b"
    assert second.is_met is False
    assert "did not start" in second.measured
