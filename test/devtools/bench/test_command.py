"""The command line, and the pieces that touch the system."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from backend.engine import native
from backend.engine.kernels import TORCH
from devtools.bench import clips, memory
from devtools.bench.__main__ import _AGAINST_EARLIER, MEASURES, parse
from devtools.bench.child import OURS, TODAY, Failed
from devtools.bench.git_revision import system
from devtools.bench.inside import AS_SERVED, Engine, Inside
from devtools.bench.memory import Peak
from devtools.bench.plan import Plan
from devtools.bench.shapes import ROOT

HAS_PROC = Path("/proc/self/clear_refs").exists()


def test_everything_is_measured_unless_names_are_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert not parse([]).only  # which means all that the rivals have
    assert set(_AGAINST_EARLIER) < set(MEASURES)
    assert parse(["--only", "clip, crowd"]).only == ("clip", "crowd")
    for wrong in (["--only", "clop"], ["--runs", "0"], ["--shape", "aligner"], ["--rivals", "earlier"]):
        with pytest.raises(SystemExit):
            parse(wrong)
    assert "clop is not known" in capsys.readouterr().err


def test_each_of_ours_meets_today_and_itself_at_another_commit() -> None:
    earlier = replace(OURS, name="abc1234", command=("old",))
    contests = [(ours.name, theirs.name) for ours, theirs in Plan(earlier=earlier).contests]
    names = [ours.name for ours in Plan().subjects]
    assert contests[: len(names)] == [(name, TODAY.name) for name in names]
    assert contests[len(names) :] == [(name, name.replace("ours", "abc1234")) for name in names]


def test_an_earlier_revision_can_be_the_only_rival() -> None:
    earlier = replace(OURS, name="abc1234", command=("old",), engine=("worker",))
    plan = Plan(earlier=earlier, rivals="earlier")
    assert {(theirs.command, theirs.engine) for _, theirs in plan.contests} == {(("old",), ("worker",))}
    assert TODAY not in plan.systems
    assert all(theirs is TODAY for _, theirs in Plan(earlier=earlier, rivals="today").contests)


def test_a_commit_that_is_not_there_is_named() -> None:
    with pytest.raises(Failed, match=r"\S"):
        system("no-such-commit")


def test_clips_differ_and_are_as_long_as_they_should_be() -> None:
    first, second = (soundfile.read(clips.clip(number, 2.0))[0] for number in (0, 1))
    assert first.size == second.size == 32_000
    assert (first != second).any()
    whole = soundfile.read(clips.recording(9.0))[0]
    parts = [soundfile.read(piece)[0] for piece in clips.pieces(9.0, 4.0)]
    assert [part.size for part in parts] == [64_000, 64_000, 16_000]
    assert (np.concatenate(parts) == whole).all()


@pytest.mark.skipif(not HAS_PROC, reason="reads /proc")
def test_the_peak_is_of_the_time_between() -> None:
    before = bytearray(os.urandom(1 << 20) * 96)
    del before
    with Peak(os.getpid()) as peak:
        held = bytearray(os.urandom(1 << 20) * 32)
        peak.stop()
    now = memory.now(os.getpid())
    assert now.anonymous <= peak.memory.anonymous + len(held)
    assert now.resident < peak.memory.resident + (16 << 20)
    assert peak.memory.above(peak.memory) == (0, 0)


@pytest.mark.skipif(not HAS_PROC, reason="reads /proc")
def test_the_engine_inside_waits_for_its_threads_as_the_served_one_does(monkeypatch) -> None:
    start = (ROOT / "run.sh").read_text()
    for name in AS_SERVED:
        monkeypatch.delenv(name, raising=False)
    with Inside() as ours, Inside(as_served=False) as other:
        given, usual = (Path(f"/proc/{inside.pid}/environ").read_text().split("\0") for inside in (ours, other))
    for name, value in AS_SERVED.items():
        assert f'export {name}="${{{name}:-{value}}}"' in start
        assert f"{name}={value}" in given
        assert f"{name}={value}" not in usual


def test_a_task_that_fails_inside_is_told_and_the_next_one_works() -> None:
    with Inside() as inside:
        with pytest.raises(Failed, match="TypeError"):
            inside.do("align")
        with pytest.raises(Failed, match="UndecodableAudio"):
            inside.do("align", audio="nowhere.wav", text="")


def test_without_compiled_kernels_the_engine_inside_computes_by_torchs(monkeypatch, asr_folder: Path) -> None:
    engine = Engine()
    monkeypatch.setattr(native, "library", None)
    with pytest.raises(RuntimeError, match="no C compiler"):
        engine.without_compiled()
    monkeypatch.setattr(native, "library", object())
    engine.without_compiled()
    engine.load(str(asr_folder), dtype="float32")
    assert engine._recognizers[0].decoder._kernels is TORCH
