from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from backend.doctor.advice import Options, after_trial, computes_on_gpu, options_for, verdict, yaml_of
from backend.doctor.child_process import Report
from backend.doctor.findings import exit_code, fail, ok, warn
from backend.doctor.model.model_check import CheckpointFacts, Fit
from backend.doctor.model.trial import Timing, Trial

SLOW, FAST = 3.0, 30.0  # GB/s
FINE = [ok("x", "fine")]


def cpu(speed: float, dtype: str = "float32", refusal: str = "") -> Report:
    gpu = {"refusal": refusal} if refusal else {"refusal": "", "device": "cpu", "dtype": dtype}
    return Report({"processor": {"dtype": dtype, "read_gb_per_s": speed}, "gpu": gpu})


def gpu(dtype: str = "bfloat16", **errors: object) -> Report:
    compute = {"errors": errors or {dtype: 0.001}, "read_gb_per_s": 300.0}
    return Report({**cpu(FAST).facts, "gpu": {"device": "cuda:0", "dtype": dtype}, "compute": compute})


@pytest.mark.parametrize(
    ("report", "fit", "options"),
    [
        (cpu(FAST), None, Options()),
        (cpu(FAST, "bfloat16"), None, Options()),
        (cpu(8.0), None, Options(quantization="int8")),  # 3.4 tokens a second in float32, 13.4 in int8
        (cpu(SLOW), None, Options()),  # int8 would not do either
        (cpu(FAST, refusal="PyTorch for CUDA 13 finds no GPU"), None, Options(device="cpu")),
        (Report(failure="no answer within 60 s", timed_out=True), None, Options(device="cpu")),
        (gpu(), None, Options()),
        (gpu(bfloat16="NaN", float16=0.001), None, Options(torch_dtype="fp16")),
        (gpu(), Fit("close", 9e9, 10e9, "int8", 2), Options(quantization="int8", batch_max_size=2)),
        (cpu(8.0), Fit("fits", 1e9, 10e9), Options()),  # with a model at hand its speed is measured
    ],
)
def test_the_options_follow_from_what_was_found(report: Report, fit: Fit | None, options: Options) -> None:
    assert options_for(report, fit) == options


def test_a_model_that_was_slower_than_speech_is_to_be_quantised() -> None:
    assert after_trial(Options(), Trial("", 1.0, (Timing(60, 90.0),))).quantization == "int8"
    assert after_trial(Options(), Trial("", 1.0, (Timing(60, 9.0),))).quantization == ""
    assert after_trial(Options(), None).quantization == ""


@pytest.mark.parametrize(
    ("report", "findings", "trial", "device", "real_time", "words"),
    [
        (cpu(FAST, "bfloat16"), FINE, None, "cpu", True, "real time on this CPU (estimated"),
        (cpu(SLOW), FINE, None, "cpu", False, "not real time on this CPU"),
        (gpu(), [warn("x", "y", "z")], None, "gpu", True, "real time on this GPU (estimated"),
        (gpu(), [fail("driver", "old", "new")], None, "none", False, "does not work here as it is (driver)"),
        (gpu(), FINE, Trial("", 1.0, (Timing(11, 1), Timing(60, 4))), "gpu", True, "on this GPU (measured: 11.0 ×"),
        (cpu(FAST), FINE, Trial("", 1.0, (Timing(60, 120),)), "cpu", False, "not real time on this CPU (measured: 0.5"),
        (cpu(FAST), FINE, Trial("it is damaged"), "none", False, "does not work here: it is damaged"),
    ],
)
def test_the_verdict_is_real_time_on_the_gpu_on_the_cpu_or_not(
    report: Report, findings, trial, device: str, real_time: bool, words: str
) -> None:
    found = verdict(findings, report, Options(), trial)
    assert (found.device, found.real_time, found.measured) == (device, real_time, trial is not None)
    assert words in found.words


def test_a_gpu_that_computes_wrong_in_every_dtype_does_not_count() -> None:
    assert computes_on_gpu(gpu())
    assert not computes_on_gpu(gpu(bfloat16="CUDA error", float32="CUDA error"))
    assert not computes_on_gpu(cpu(FAST))


HUB = CheckpointFacts("Qwen/Qwen3-ASR-1.7B")


def test_defaults_that_fit_need_no_options() -> None:
    assert yaml_of(Options(), None, None).splitlines() == [
        "backend: qwen-asr",
        "# device, dtype, quantization and batch size: the defaults fit this machine",
    ]


def test_the_yaml_can_be_pasted() -> None:
    options = Options("cpu", "fp32", "int8", 2)
    assert yaml_of(options, HUB, replace(HUB, name="Qwen/Qwen3-ForcedAligner-0.6B")) == (
        "backend: qwen-asr\n"
        "parameters:\n"
        "  model: Qwen/Qwen3-ASR-1.7B\n"
        "quantization: int8\n"
        "options:\n"
        "  - device:cpu\n"
        "  - torch_dtype:fp32\n"
        "  - batch_max_size:2\n"
        "  - forced_aligner:Qwen/Qwen3-ForcedAligner-0.6B"
    )


def test_a_folder_is_named_below_the_models_folder_because_the_gateway_refuses_others(tmp_path: Path) -> None:
    facts = CheckpointFacts(str(tmp_path / "speech/asr"), local=True)
    assert "\n  model: speech/asr\n" in yaml_of(Options(), facts, None, str(tmp_path))
    assert "\n  model: asr  # the folder, below LocalAI's models folder\n" in yaml_of(Options(), facts, None)
    odd = CheckpointFacts(str(tmp_path / "my: model"), local=True)
    assert '\n  model: "my: model"\n' in yaml_of(Options(), odd, None, str(tmp_path))


def test_the_exit_code_is_that_of_the_worst_finding() -> None:
    assert exit_code([]) == 0
    assert exit_code(FINE) == 0
    assert exit_code([*FINE, warn("x", "y", "z")]) == 1
    assert exit_code([fail("x", "y", "z"), *FINE, warn("x", "y", "z")]) == 2
