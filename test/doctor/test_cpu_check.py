from __future__ import annotations

import math
from dataclasses import replace

import pytest
from findings import assert_finding

from backend.doctor.child_process import Report
from backend.doctor.cpu_check import LARGEST, SMALLEST, CpuFacts, judge, probe, tokens_per_s
from backend.doctor.findings import Finding

GOOD = CpuFacts("AMD EPYC", 8, 8.0, 32e9, 24e9)
ENGINE = {
    "torch": "2.13.0+cpu", "build": "cpu", "threads": 4, "instruction_sets": ["AVX512", "bf16", "VNNI"],
    "dtype": "bfloat16", "kernels": ["gemv_bf16"], "kernels_file": True, "read_gb_per_s": 24.0,
}  # fmt: skip


def found(name: str, facts: CpuFacts = GOOD, on_gpu: bool = False, **engine: object) -> Finding:
    report = Report({"processor": {**ENGINE, **engine}})
    return next(finding for finding in judge(facts, report, on_gpu) if finding.name == name)


def test_a_good_processor_is_fine_and_says_what_it_will_do() -> None:
    findings = judge(GOOD, Report({"processor": ENGINE}), on_gpu=False)
    assert {finding.level for finding in findings} == {"OK"}
    assert "AVX-512, bf16, VNNI: weights in bfloat16" in found("instructions").value
    assert "the 0.6B at most 20 in bfloat16, 40 in int8" in found("memory speed").value


@pytest.mark.parametrize(
    ("name", "facts", "engine", "level", "value", "remedy"),
    [
        ("processor", {"cores": 1.5}, {"threads": 8}, "WARN", "1.5 of 8 cores", "threads: 1"),
        ("memory", {"free": 1.5e9}, {}, "FAIL", "1.5 of 32.0 GB free; the 0.6B in int8 needs about 2.2", "memory"),
        ("memory", {"free": 2.3e9}, {}, "WARN", "in bfloat16 needs about 2.5", "quantization: int8"),
        ("memory", {"free": 2.6e9}, {}, "OK", "2.6 of 32.0 GB free", ""),
        ("memory", {"free": 3e9}, {"dtype": "float32"}, "WARN", "in float32 needs about 4.1", "quantization: int8"),
        ("memory", {"free": math.inf, "total": math.inf}, {}, "OK", "? of ? GB", ""),
        (
            "instructions",
            {},
            {"instruction_sets": ["AVX2"], "dtype": "float32"},
            "WARN",
            "AVX2: weights in float32",
            "int8",
        ),
        ("C kernels", {}, {"kernels": None, "kernels_file": False}, "WARN", "no C compiler", "apt-get install gcc"),
        ("C kernels", {}, {"kernels": None, "kernels_file": True}, "WARN", "another machine", "make install"),
        ("C kernels", {}, {"kernels": []}, "OK", "of those that need AVX-512 none", ""),
    ],
)
def test_each_fault_has_its_level_and_remedy(
    name: str, facts: dict, engine: dict, level: str, value: str, remedy: str
) -> None:
    assert_finding(found(name, replace(GOOD, **facts), **engine), level, value, remedy)


def test_what_a_gpu_does_instead_is_no_reservation() -> None:
    weak = {"instruction_sets": ["AVX2"], "dtype": "float32", "kernels": None, "kernels_file": False}
    findings = judge(replace(GOOD, free=2.5e9), Report({"processor": {**ENGINE, **weak}}), on_gpu=True)
    assert {finding.level for finding in findings} == {"OK"}


def test_a_torch_that_does_not_start_is_a_failure_with_its_own_words() -> None:
    findings = judge(GOOD, Report(failure="No module named 'torch'"), on_gpu=False)
    assert findings[-1] == Finding(
        "engine", "FAIL", "torch does not start: No module named 'torch'", findings[-1].remedy
    )


def test_a_token_reads_all_weights_of_the_decoder() -> None:
    assert tokens_per_s(SMALLEST, "float32", 2.384) == pytest.approx(1)
    assert tokens_per_s(LARGEST, "int8", 172) == pytest.approx(100)


def test_this_machine_has_cores_and_memory() -> None:
    facts = probe()
    assert facts.model
    assert 0 < facts.cores <= facts.machine_cores
    assert facts.free > 0
