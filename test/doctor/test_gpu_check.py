from __future__ import annotations

from pathlib import Path

import pytest

from backend.doctor import gpu_check
from backend.doctor.child_process import Report
from backend.doctor.findings import Finding
from backend.doctor.gpu_check import Card, GpuFacts, judge, probe

RTX = Card("NVIDIA", "NVIDIA RTX 3060", "8.6", 580)
OLD = Card("NVIDIA", "GTX 1080", "6.1", 535)
RADEON = Card("AMD", "gfx1100", "gfx1100", 0)
STRIX = Card("AMD", "gfx1151", "gfx1151", 0)
DEVICE = {"name": "RTX 3060", "capability": "8.6", "free_bytes": 11e9, "total_bytes": 12e9}


def report(build: str = "cuda 13.0", *, compute: dict | None = None, failure: str = "", **gpu: object) -> Report:
    """Of a card that works; `gpu` and `compute` change it."""
    chosen = {
        "refusal": "", "devices": [DEVICE], "arch_list": ["sm_86"], "device": "cuda:0", "dtype": "bfloat16",
        "reason": "Ampere or later computes bf16", "rows": 32, "free_bytes": 11e9, **gpu,
    }  # fmt: skip
    right = {"errors": {"bfloat16": 0.004}, "can_quantize": True, "read_gb_per_s": 300.0}
    return Report({"processor": {"build": build}, "gpu": chosen, "compute": compute or right}, failure)


def on_cpu(build: str = "cpu", reason: str = "no GPU found") -> Report:
    gpu = {"refusal": "", "devices": [], "arch_list": [], "device": "cpu", "dtype": "float32", "reason": reason}
    return Report({"processor": {"build": build}, "gpu": gpu})


def worst(findings: list[Finding]) -> Finding:
    return max(findings, key=lambda finding: ("OK", "WARN", "FAIL").index(finding.level))


def test_a_card_that_computes_is_fine() -> None:
    findings = judge(GpuFacts((RTX,)), report())
    assert {finding.level for finding in findings} == {"OK"}
    values = {finding.name: finding.value for finding in findings}
    assert values["cards"] == "NVIDIA RTX 3060 (8.6)"
    assert values["GPU 0"] == "RTX 3060 (8.6), 11.0 of 12.0 GB free"
    assert values["driver"] == "580, cuda 13.0 needs 580"
    assert values["product and attention"] == "right in bfloat16, 300 GB/s"


def test_no_card_and_a_build_for_cpus_is_fine_also_where_gpus_are_hidden() -> None:
    for hidden in ({}, {"CUDA_VISIBLE_DEVICES": ""}):
        assert {finding.level for finding in judge(GpuFacts(hidden=hidden), on_cpu())} == {"OK"}


NO_DRIVER = "PyTorch for CUDA 13.0 finds no GPU: Found no NVIDIA driver on your system"


@pytest.mark.parametrize(
    ("facts", "seen", "level", "value", "remedy"),
    [
        (GpuFacts((RTX,)), on_cpu(), "WARN", "a card, but torch is built for CPUs", "BUILD_TYPE=cublas make install"),
        (GpuFacts((RADEON,)), on_cpu(), "WARN", "a card, but torch is built for CPUs", "BUILD_TYPE=hipblas"),
        (GpuFacts((RADEON,)), on_cpu("cuda 13.0"), "FAIL", "built for NVIDIA", "BUILD_TYPE=hipblas"),
        (GpuFacts((RTX,)), on_cpu("rocm 7.2"), "FAIL", "built for AMD", "BUILD_TYPE=cublas"),
        (GpuFacts((OLD,)), on_cpu("cuda 13.0"), "FAIL", "535 is too old for torch's cuda 13.0", "CUDA=12"),
        (
            GpuFacts((OLD._replace(driver=470),)),
            on_cpu("cuda 12.6"),
            "FAIL",
            "470 is too old",
            "update the driver to 525",
        ),
        (GpuFacts(), report(refusal=NO_DRIVER), "FAIL", "Found no NVIDIA driver", "device:cpu"),
        (GpuFacts((RTX,), closed=("/dev/nvidia0",)), report(), "WARN", "may not open /dev/nvidia0", "usermod"),
        (
            GpuFacts((RTX,), hidden={"CUDA_VISIBLE_DEVICES": "-1"}),
            on_cpu("cuda 13.0"),
            "WARN",
            "hides every GPU",
            "unset",
        ),
        (
            GpuFacts((STRIX,)),
            report("rocm 7.2", arch_list=["gfx1100"], devices=[{**DEVICE, "capability": "gfx1151:xnack-"}]),
            "FAIL",
            "gfx1151 is not in this build, which has gfx1100",
            "HSA_OVERRIDE_GFX_VERSION=11.0.0",
        ),
        (
            GpuFacts((RTX,)),
            report(compute={"errors": {"bfloat16": "NaN", "float16": "no", "float32": 0.0}, "read_gb_per_s": 1}),
            "WARN",
            "wrong in bfloat16: NaN",
            "torch_dtype:fp32",
        ),
        (
            GpuFacts((RTX,)),
            report(compute={"errors": {"bfloat16": "CUDA error"}, "read_gb_per_s": 1}),
            "FAIL",
            "CUDA error",
            "device:cpu",
        ),
    ],
)
def test_each_fault_has_its_level_and_remedy(
    facts: GpuFacts, seen: Report, level: str, value: str, remedy: str
) -> None:
    finding = worst(judge(facts, seen))
    assert finding.level == level
    assert value in finding.value
    assert remedy in finding.remedy


def test_fp32_is_only_proposed_where_it_is_right() -> None:
    errors = {"bfloat16": "not supported", "float16": 0.001, "float32": 0.0}
    assert worst(judge(GpuFacts((RTX,)), report(compute={"errors": errors, "read_gb_per_s": 1}))).remedy == (
        "torch_dtype:fp16"
    )


def test_a_driver_that_hangs_is_a_failure_with_the_time_that_was_waited() -> None:
    asked = Report({"processor": {"build": "rocm 7.2"}}, "no answer within 60 s", timed_out=True)
    assert "no answer within 60 s" in worst(judge(GpuFacts((RADEON,)), asked)).value
    computing = report()
    del computing.facts["compute"]
    computing = Report(computing.facts, "no answer within 60 s", timed_out=True)
    finding = worst(judge(GpuFacts((RTX,)), computing))
    assert (finding.name, finding.level, finding.value) == ("product and attention", "FAIL", "no answer within 60 s")


def test_a_torch_that_does_not_start_is_left_to_the_processors_section() -> None:
    assert {finding.level for finding in judge(GpuFacts((RTX,)), Report(failure="no torch"))} == {"OK"}


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`smi(script)`: an nvidia-smi of these lines of sh."""

    def make(script: str) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return make


def test_nvidia_cards_are_what_nvidia_smi_says(smi, tmp_path: Path) -> None:
    smi('echo "NVIDIA GeForce RTX 3060, 580.65.06, 8.6"; echo "Tesla P4, 580.65.06, 6.1"')
    facts = probe(tmp_path / "dev", tmp_path / "topology")
    assert facts.cards == (
        Card("NVIDIA", "NVIDIA GeForce RTX 3060", "8.6", 580),
        Card("NVIDIA", "Tesla P4", "6.1", 580),
    )


def test_an_nvidia_smi_that_does_not_know_the_capability_is_asked_for_less(smi, tmp_path: Path) -> None:
    smi('case "$1" in *compute_cap*) exit 2;; esac; echo "GeForce GTX 970, 470.57"')
    assert probe(tmp_path / "dev", tmp_path / "topology").cards == (Card("NVIDIA", "GeForce GTX 970", "", 470),)


def test_an_nvidia_smi_that_hangs_or_fails_is_no_card(smi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "_SMI_TIMEOUT_S", 0.2)
    smi("sleep 20")
    assert probe(tmp_path / "dev", tmp_path / "topology").cards == ()
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia0").touch()
    smi("exit 9")
    [card] = probe(tmp_path / "dev", tmp_path / "topology").cards
    assert "does not answer" in card.name


def test_amd_cards_are_those_of_the_kernels_topology(tmp_path: Path) -> None:
    for node, version in (("0", 0), ("1", 110501), ("2", 90010)):
        (tmp_path / node).mkdir()
        (tmp_path / node / "properties").write_text(f"cpu_cores_count 1\ngfx_target_version {version}\n")
    found = [card for card in probe(tmp_path / "dev", tmp_path).cards if card.maker == "AMD"]
    assert [card.name for card in found] == ["gfx1151", "gfx90a"]


def test_a_node_that_may_not_be_opened_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kfd").touch()
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may open everything
    assert probe(tmp_path, tmp_path).closed == (str(tmp_path / "kfd"),)
