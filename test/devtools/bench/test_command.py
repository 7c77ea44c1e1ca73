"""The command line, and the pieces that touch the system."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from backend.engine.ops import native
from backend.engine.ops.torch_ops import TORCH
from devtools.bench import clips, git_revision
from devtools.bench.__main__ import AGAINST_EARLIER, MEASURES, main, parse
from devtools.bench.benchmark import Benchmark
from devtools.bench.engine_worker import ONEDNN_ONLY, Engine, Worker
from devtools.bench.measurement import Failed
from devtools.bench.system import BASELINE, OURS
from devtools.server_process import ROOT

HAS_PROC = Path("/proc/self/clear_refs").exists()


def test_everything_is_measured_unless_names_are_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert not parse([]).only  # which means all that the rivals have
    assert set(AGAINST_EARLIER) < set(MEASURES)
    assert parse(["--only", "clip, crowd"]).only == ("clip", "crowd")
    for wrong in (["--only", "clop"], ["--runs", "0"], ["--shape", "aligner"], ["--rivals", "earlier"]):
        with pytest.raises(SystemExit):
            parse(wrong)
    assert "clop is not known" in capsys.readouterr().err


def test_each_of_ours_meets_today_and_itself_at_another_commit() -> None:
    earlier = replace(OURS, name="abc1234", command=("old",))
    contests = [(ours.name, theirs.name) for ours, theirs in Benchmark(earlier=earlier).contests]
    names = [ours.name for ours in Benchmark().subjects]
    assert contests[: len(names)] == [(name, BASELINE.name) for name in names]
    assert contests[len(names) :] == [(name, name.replace("ours", "abc1234")) for name in names]


def test_an_earlier_revision_can_be_the_only_rival() -> None:
    earlier = replace(OURS, name="abc1234", command=("old",), worker=("worker",))
    bench = Benchmark(earlier=earlier, rivals="earlier")
    assert {(theirs.command, theirs.worker) for _, theirs in bench.contests} == {(("old",), ("worker",))}
    assert BASELINE not in bench.systems
    assert all(theirs is BASELINE for _, theirs in Benchmark(earlier=earlier, rivals="today").contests)


def test_a_commit_that_is_not_there_is_named() -> None:
    with pytest.raises(Failed, match=r"\S"):
        git_revision.system("no-such-commit")


def test_a_revision_without_its_c_kernels_is_refused_where_ours_has_them(tmp_path: Path, monkeypatch) -> None:
    ours, theirs = tmp_path / "ours/backend/engine", tmp_path / "theirs/backend/engine/ops/csrc"
    ours.mkdir(parents=True)
    theirs.mkdir(parents=True)
    monkeypatch.setattr(git_revision, "ROOT", tmp_path / "ours")

    def note() -> str:
        return git_revision._missing_kernels("abc1234", tmp_path / "theirs")

    assert note() == ""
    (ours / "libkernels.so").touch()
    assert note() == "abc1234 has no C kernels"
    (theirs / "gemv.c").touch()
    with pytest.raises(Failed, match="did not compile the C kernels of abc1234"):
        note()
    (theirs / "libkernels.so").touch()
    assert note() == ""
    (ours / "libkernels.so").unlink()
    with pytest.raises(Failed, match="make install"):
        note()


def test_clips_differ_and_are_as_long_as_they_should_be() -> None:
    first, second = (soundfile.read(clips.clip(number, 2.0))[0] for number in (0, 1))
    assert first.size == second.size == 32_000
    assert (first != second).any()
    whole = soundfile.read(clips.recording(9.0))[0]
    parts = [soundfile.read(piece)[0] for piece in clips.pieces(9.0, 4.0)]
    assert [part.size for part in parts] == [64_000, 64_000, 16_000]
    assert (np.concatenate(parts) == whole).all()


@pytest.mark.skipif(not HAS_PROC, reason="reads /proc")
def test_the_engine_worker_has_the_environment_of_the_server(monkeypatch) -> None:
    start = (ROOT / "run.sh").read_text()
    as_served = {"GOMP_SPINCOUNT": "20000", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "32", "LRU_CACHE_CAPACITY": "4"}
    for name in as_served:
        monkeypatch.delenv(name, raising=False)
    with Worker() as ours, Worker(as_served=False) as other:
        given, usual = (Path(f"/proc/{worker.pid}/environ").read_text().split("\0") for worker in (ours, other))
    for name, value in as_served.items():
        assert f'export {name}="${{{name}:-{value}}}"' in start
        assert f"{name}={value}" in given
        assert f"{name}={value}" not in usual


def test_a_failed_task_of_the_engine_worker_has_its_cause_and_the_next_one_works() -> None:
    with Worker() as worker:
        with pytest.raises(Failed, match="TypeError"):
            worker.run("align")
        with pytest.raises(Failed, match="UndecodableAudio"):
            worker.run("align", audio="nowhere.wav", text="")


def test_without_c_kernels_the_engine_worker_computes_by_torch(monkeypatch, asr_folder: Path) -> None:
    engine = Engine()
    monkeypatch.setattr(native, "library", None)
    with pytest.raises(RuntimeError, match="no C compiler"):
        engine.switch_off(["all"])
    monkeypatch.setattr(native, "library", object())
    engine.switch_off(["all"])
    engine.load(str(asr_folder), dtype="float32")
    assert engine._recognizer.decoder._kernels is TORCH


@pytest.mark.slow
@pytest.mark.skipif(native.library is None, reason="install.sh found no C compiler")
def test_each_c_kernel_can_be_switched_off_alone(asr_folder: Path, recordings: Path) -> None:
    audio, model = str(recordings / "set/01_en_trained.flac"), str(asr_folder)
    by_products = ["GEMV", "prefill attention"] if native.library.has_gemv_bf16() else []
    used = ["rowwise", "decode attention", *by_products]
    with Worker() as worker:  # one after the other in one process
        for kernel in (None, *used):
            worker.run("switch_off", kernels=[kernel] if kernel else [])
            worker.run("load", model=model, dtype="bfloat16")
            used = [name for name in used if name != kernel]
            assert worker.run("used_kernels", audio=audio)["kernels"] == used


@pytest.mark.slow
@pytest.mark.skipif(native.library is None, reason="install.sh found no C compiler")
def test_int8_can_be_computed_by_onednn_alone(asr_folder: Path, recordings: Path) -> None:
    task = {"audio": str(recordings / "set/01_en_trained.flac"), "tokens": 100}
    with Worker() as usual, Worker() as other:
        other.run("switch_off", kernels=[ONEDNN_ONLY])
        for worker in (usual, other):
            worker.run("load", model=str(asr_folder), quantization="int8")
        assert other.run("recognize", **task)["text"] == usual.run("recognize", **task)["text"] != ""
        assert "GEMV" not in other.run("used_kernels", audio=task["audio"])["kernels"]


def test_a_revision_that_there_is_not_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--against", "no-such-revision", "--only", "health"]) == 1
    assert "bench: AGAINST: no-such-revision is no commit, branch or tag here" in capsys.readouterr().err
