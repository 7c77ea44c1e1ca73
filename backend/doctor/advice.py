"""What the findings amount to: a verdict in words, and the options to paste into the model's YAML."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from backend.doctor.child_process import Report
from backend.doctor.cpu_check import REAL_TIME_TOKENS_PER_S, SMALLEST, tokens_per_s
from backend.doctor.findings import Finding, exit_code
from backend.doctor.gpu_check import DTYPE_OPTIONS, right_dtypes
from backend.doctor.model.model_check import CheckpointFacts, Fit
from backend.doctor.model.trial import Trial


@dataclass(frozen=True)
class Options:
    """Those that are not the default; "" and None where the default is right."""

    device: str = ""
    torch_dtype: str = ""
    quantization: str = ""
    batch_max_size: int | None = None

    @property
    def pairs(self) -> list[str]:
        """As `options:` has them."""
        return [
            *([f"device:{self.device}"] if self.device else []),
            *([f"torch_dtype:{self.torch_dtype}"] if self.torch_dtype else []),
            *([f"batch_max_size:{self.batch_max_size}"] if self.batch_max_size else []),
        ]


Device = Literal["gpu", "cpu", "servers", "none"]
_WHERE: dict[Device, str] = {"gpu": "on this GPU", "cpu": "on this CPU", "servers": "on these servers"}


@dataclass(frozen=True)
class Verdict:
    """`device`: gpu, cpu, servers (of engine_url), or none.

    `real_time`: whether speech is transcribed as fast as it is spoken. `measured`: with the operator's model; else
    estimated.
    """

    device: Device
    real_time: bool
    measured: bool
    words: str


def of_the_cpu(report: Report) -> Report:
    """What it says of this machine to an operator who does not want the GPU."""
    return replace(report, facts={name: fact for name, fact in report.facts.items() if name not in ("gpu", "compute")})


def computes_on_gpu(report: Report) -> bool:
    """Whether a load with default options takes a GPU, and the GPU computed right in some dtype."""
    gpu = report.facts.get("gpu") or {}
    compute = report.facts.get("compute") or {}
    return gpu.get("device", "cpu") != "cpu" and bool(right_dtypes(compute.get("errors", {})))


def options_for(report: Report, fit: Fit | None) -> Options:
    """From what the device can do and how the model fits; where the CPU is slow and nothing is known of it, int8."""
    gpu = report.facts.get("gpu")
    if computes_on_gpu(report):
        right = right_dtypes(report.facts["compute"]["errors"])
        options = Options(torch_dtype="" if report.facts["gpu"]["dtype"] in right else DTYPE_OPTIONS[right[0]])
    else:
        options = Options(device="" if gpu and gpu.get("device") == "cpu" else "cpu")
    if fit is not None:
        return Options(options.device, options.torch_dtype, fit.quantization, fit.rows)
    slow = not computes_on_gpu(report) and _estimate(report, "") < 1 <= _estimate(report, "int8")
    return Options(options.device, options.torch_dtype, "int8" if slow else "")


def after_trial(options: Options, trial: Trial | None) -> Options:
    """Eight bits for a model that was measured to be slower than speech without them."""
    is_slow = trial is not None and any(timing.factor < 1 for timing in trial.timings)
    return replace(options, quantization="int8") if is_slow else options


def yaml_of(
    options: Options,
    model: CheckpointFacts | None,
    aligner: CheckpointFacts | None,
    models_folder: str = "",
    given: Sequence[str] = (),
) -> str:
    """Lines for the model's YAML; a comment where the defaults are right. `given`: the operator's own options."""
    names = {pair.partition(":")[0] for pair in given}
    lines = ["backend: qwen-asr"]
    if model is not None:
        lines += ["parameters:", f"  model: {_checkpoint(model, models_folder)}"]
    if options.quantization and "quantization" not in names:
        lines.append(f"quantization: {options.quantization}")
    advised = [pair for pair in options.pairs if pair.partition(":")[0] not in names]
    pairs = [_scalar(pair) for pair in (*advised, *given) if not pair.startswith("forced_aligner:")]
    if aligner is not None:
        pairs.append(f"forced_aligner:{_checkpoint(aligner, models_folder)}")
    if pairs:
        lines += ["options:", *(f"  - {pair}" for pair in pairs)]
    if not options.pairs and not options.quantization:
        lines.append("# device, dtype, quantization and batch size: the defaults fit this machine")
    return "\n".join(lines)


def _checkpoint(facts: CheckpointFacts, models_folder: str) -> str:
    """A hub id, or a folder below the models folder: the gateway refuses the path of any other."""
    path = Path(facts.name)
    if not facts.local:
        return _scalar(facts.name)
    if models_folder and path.is_relative_to(Path(models_folder).resolve()):
        return _scalar(str(path.relative_to(Path(models_folder).resolve())))
    return f"{_scalar(path.name)}  # the folder, below LocalAI's models folder"


def verdict(
    findings: Sequence[Finding], report: Report, options: Options, trial: Trial | None, on_servers: bool = False
) -> Verdict:
    """Real time on this GPU, on this CPU, on the servers of engine_url, or not."""
    device: Device = "servers" if on_servers else "gpu" if computes_on_gpu(report) else "cpu"
    if trial is not None:
        return _measured(trial, device)
    if exit_code(findings) == 2:
        failed = ", ".join(finding.name for finding in findings if finding.level == "FAIL")
        return Verdict("none", False, False, f"it does not work here as it is ({failed})")
    factor = _estimate(report, options.quantization)
    model = SMALLEST.name + (" in int8" if options.quantization else "")
    words = f"(estimated by the memory's speed: {model} at {factor:.1f} × real time; MODEL= measures it)"
    return Verdict(device, factor >= 1, False, f"{'' if factor >= 1 else 'not '}real time {_WHERE[device]} {words}")


def _measured(trial: Trial, device: Device) -> Verdict:
    if trial.failure or not trial.timings:
        return Verdict("none", False, True, f"the model does not work here: {trial.failure}")
    slowest = min(timing.factor for timing in trial.timings)
    words = f"{'' if slowest >= 1 else 'not '}real time {_WHERE[device]}"
    return Verdict(device, slowest >= 1, True, f"{words} (measured: {slowest:.1f} × real time)")


def _estimate(report: Report, quantization: str) -> float:
    """Times real time of the smallest model, one recording at a time; 0 where nothing was measured."""
    on_gpu = computes_on_gpu(report)
    speed = report.facts.get("compute" if on_gpu else "processor", {}).get("read_gb_per_s", 0.0)
    dtype = quantization or report.facts.get("gpu" if on_gpu else "processor", {}).get("dtype", "float32")
    return tokens_per_s(SMALLEST, dtype, speed) / REAL_TIME_TOKENS_PER_S


def _scalar(text: str) -> str:
    """A YAML scalar: plain where that is safe, quoted as JSON elsewhere."""
    is_plain = re.fullmatch(r"[A-Za-z0-9/._][A-Za-z0-9/._:-]*(?<!:)", text) is not None
    return text if is_plain else json.dumps(text, ensure_ascii=False)
