from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from backend.checkpoint import fit
from backend.checkpoint.aligner_lookup import find_aligner
from backend.checkpoint.fit import Room
from backend.doctor.child_process import Report
from backend.doctor.model import model_check
from backend.doctor.model.model_check import (
    CheckpointFacts,
    Fit,
    Place,
    examine,
    fit_of,
    judge_checkpoint,
    judge_fit,
    look_up_aligner,
    look_up_model,
    place_of,
)
from backend.doctor.model.trial import Timing, Trial, judge_trial
from backend.options.load_options import LoadOptions

LOCAL = CheckpointFacts("/models/asr", local=True, folder=Path("/models/asr"), layout="package", disk_bytes=10**9)
HUB = CheckpointFacts("Qwen/Qwen3-ASR-0.6B", on_hub=True, token=True)


def test_the_demos_checkpoints_are_looked_up(asr_folder: Path, aligner_folder: Path) -> None:
    model = look_up_model(LoadOptions(str(asr_folder)))
    assert (model.refusal, model.local, model.layout) == ("", True, "package")
    assert model.disk_bytes > 10**6
    finding = judge_checkpoint("MODEL", model)
    assert (finding.level, finding.remedy) == ("OK", "")
    assert "on disk, package layout" in finding.value
    assert look_up_aligner(LoadOptions(str(asr_folder)), model) is None


def test_relative_paths_start_where_run_sh_was_called(asr_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLDPWD", str(asr_folder.parent))
    options = LoadOptions("asr", forced_aligner="aligner")
    model = look_up_model(options)
    aligner = look_up_aligner(options, model)
    assert aligner is not None
    assert [Path(model.name).name, Path(aligner.name).name] == ["asr", "aligner"]
    assert (model.refusal, aligner.refusal) == ("", "")


def test_the_aligner_is_the_one_that_a_load_finds(
    asr_folder: Path, aligner_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "models"
    shutil.copytree(asr_folder, model := models / ".artifacts/abc/asr")
    shutil.copytree(aligner_folder, aligner := models / "qwen/aligner")
    shutil.copytree(aligner_folder, tmp_path / "called/qwen/aligner")
    monkeypatch.setenv("OLDPWD", str(tmp_path / "called"))  # the models folder comes before it
    for named, folder in (
        ("qwen/aligner", ""),  # the models folder is the one above .artifacts
        ("qwen/aligner/model.safetensors", str(models)),
        ("/on/another/machine/models/qwen/aligner", str(models)),
    ):
        options = LoadOptions(str(model), model_path=folder, forced_aligner=named)
        found = look_up_aligner(options, look_up_model(options))
        assert found is not None
        assert (found.refusal, found.name) == ("", str(aligner))
        assert found.name == find_aligner(replace(options, model_file=str(model))).name


def test_a_model_on_servers_needs_no_weights(asr_folder: Path, tmp_path: Path) -> None:
    for file in asr_folder.iterdir():
        if file.suffix != ".safetensors":
            shutil.copy(file, tmp_path)
    assert "holds no .safetensors" in look_up_model(LoadOptions(str(tmp_path))).refusal
    facts = look_up_model(LoadOptions(str(tmp_path), engine_urls=("http://gpu1:8000",)))
    finding = judge_checkpoint("MODEL", facts)
    assert finding.level == "OK"
    assert "no weights here" in finding.value


def test_what_a_load_would_refuse_is_refused_in_its_words(
    asr_folder: Path, aligner_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(asr_folder, tmp_path / "whisper")
    (tmp_path / "whisper/config.json").write_text(json.dumps({"model_type": "whisper"}))
    for name, words in (
        (str(tmp_path / "whisper"), "'whisper'"),
        (str(aligner_folder), "forced_aligner"),
        ("no such thing", "neither a folder"),
    ):
        finding = judge_checkpoint("MODEL", look_up_model(LoadOptions(name)))
        assert (finding.level, finding.remedy) == ("FAIL", "MODEL=Qwen/Qwen3-ASR-0.6B")
        assert words in finding.value
    aligner = look_up_aligner(LoadOptions("m", forced_aligner="no such thing"), LOCAL)
    assert aligner is not None
    finding = judge_checkpoint("ALIGNER", aligner)
    assert (finding.level, finding.remedy) == ("FAIL", "ALIGNER=Qwen/Qwen3-ForcedAligner-0.6B")
    assert "neither a folder with a checkpoint, as it is or below the models folder" in finding.value


def test_a_hub_id_says_whether_it_is_downloaded_and_whether_there_is_a_token() -> None:
    finding = judge_checkpoint("MODEL", HUB)
    assert (finding.level, finding.remedy) == (
        "WARN",
        "hf download Qwen/Qwen3-ASR-0.6B, or let the first load fetch it",
    )
    assert "HF_TOKEN is set" in finding.value
    gated = replace(HUB, refusal="is gated; accept its conditions on the hub and set HF_TOKEN", token=False)
    assert "HF_TOKEN is not set" in judge_checkpoint("MODEL", gated).value
    assert "HF_TOKEN=" in judge_checkpoint("MODEL", gated).remedy
    downloaded = replace(HUB, folder=Path("/cache"), layout="transformers", disk_bytes=2 * 10**9)
    assert judge_checkpoint("MODEL", downloaded).level == "OK"


def place(free: float, rows: int = 32) -> Place:
    return Place("cuda:0", "bfloat16", rows, Room(free, free))


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model has 4 GB of weights, 3 in int8, and a row takes 0.1 GB; the aligner has 2."""
    monkeypatch.setattr(model_check, "read_json_object", lambda path: {})
    monkeypatch.setattr(fit, "row_bytes", lambda *_: 0.1e9)
    monkeypatch.setattr(
        fit,
        "weight_bytes",
        lambda folder, itemsize, int8=False: 2e9 if folder.name == "aligner" else 3e9 if int8 else 4e9,
    )


ALIGNER = replace(LOCAL, folder=Path("/models/aligner"))


@pytest.mark.parametrize(
    ("free", "aligner", "level", "value", "quantization", "rows"),
    [
        (24e9, ALIGNER, "OK", "needs 9.8 GB, 24.0 GB are free", "", None),
        (10e9, ALIGNER, "WARN", "close: needs 9.8 GB", "", 2),  # 4 * 1.15 + 32 * 0.1 + 2 = 9.8
        (6.5e9, ALIGNER, "WARN", "no room for the aligner", "int8", 2),  # 3 * 1.15 + 2 * 0.1 + 2 = 5.65
        (4.2e9, None, "WARN", "too large: needs 4.7 GB", "int8", 2),
        (3e9, None, "FAIL", "too large: needs 4.7 GB, 3.0 GB are free", "", None),
        (8e9, None, "WARN", "close: needs 7.8 GB", "", 2),
    ],
)
@pytest.mark.usefixtures("sizes")
def test_what_fits_better_is_proposed(free, aligner, level: str, value: str, quantization: str, rows) -> None:
    found = fit_of(LOCAL, aligner, place(free))
    assert found is not None
    finding = judge_fit(found)
    assert finding.level == level
    assert value in finding.value
    assert (found.quantization, found.rows) == (quantization, rows)
    assert ("int8" in finding.remedy) == bool(quantization)
    assert ("batch_max_size:2" in finding.remedy) == bool(rows)
    assert bool(finding.remedy) == (level != "OK")


def test_before_the_download_nothing_is_known_of_the_fit() -> None:
    assert fit_of(HUB, None, place(1e9)) is None
    assert judge_fit(None).level == "WARN"


def test_the_place_is_the_gpu_if_there_is_one_and_else_the_machines_memory() -> None:
    gpu = {"device": "cuda:0", "dtype": "float16", "rows": 8, "free_bytes": 6e9}
    assert place_of(Report({"gpu": gpu})) == Place("cuda:0", "float16", 8, Room(6e9, 6e9))
    assert place_of(Report({"gpu": {**gpu, "free_bytes": None}})).room.free == math.inf
    cpu = place_of(Report({"gpu": {"device": "cpu"}, "processor": {"dtype": "bfloat16", "rows": 8}}))
    assert (cpu.device, cpu.dtype, cpu.room.is_cpu) == ("cpu", "bfloat16", True)


def test_nothing_is_loaded_that_is_refused_or_cannot_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_check, "try_out", lambda *_: pytest.fail("it was loaded"))
    too_large = judge_fit(Fit("too large", 9e9, 1e9))
    for facts in (replace(LOCAL, refusal="no"), LOCAL):
        findings, trial = examine(facts, None, lambda: [too_large], "", [])
        assert trial is None
        assert findings[-1].level == "FAIL"


FAST = Trial("", 3.0, (Timing(11, 1.1, 50, 0.5), Timing(60, 4.0)), 2 * 10**9, 0, "The quick brown fox")


def test_a_fast_model_is_fine() -> None:
    findings = {finding.name: finding for finding in judge_trial(FAST)}
    assert {finding.level for finding in findings.values()} == {"OK"}
    assert findings["11 s of speech"].value == "in 1.10 s, 10.0 × real time, 100 tokens a second"
    assert findings["60 s of speech"].value == "in 4.00 s, 15.0 × real time"
    assert findings["peak memory"].value == "2.0 GB"
    on_gpu = judge_trial(replace(FAST, gpu_bytes=3 * 10**9))[-1]
    assert on_gpu.value == "2.0 GB, 3.0 GB on the GPU"


@pytest.mark.parametrize(
    ("changes", "name", "level", "value"),
    [
        ({"load_s": None, "failure": "it is damaged"}, "load", "FAIL", "it is damaged"),
        ({"timings": (Timing(11, 22.0),)}, "11 s of speech", "WARN", "0.5 × real time"),
        ({"timings": (), "failure": "out of memory"}, "transcription", "FAIL", "out of memory"),
        ({"text": ""}, "text", "WARN", "none of an English recording"),
    ],
)
def test_each_fault_has_its_level_and_remedy(changes: dict, name: str, level: str, value: str) -> None:
    [finding] = [finding for finding in judge_trial(replace(FAST, **changes)) if finding.level != "OK"]
    assert (finding.name, finding.level) == (name, level)
    assert value in finding.value
    assert finding.remedy
