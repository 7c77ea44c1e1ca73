"""What the doctor asks the engine, where a CPU stands for the GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from backend.engine import device_report
from backend.engine.ops.device import Placement
from backend.errors import DeviceUnavailable

CPU = torch.device("cpu")
PLACEMENT = Placement(CPU, torch.bfloat16, "sdpa", "as asked")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_report, "_SYNCHRONIZE", {"cpu": lambda: None})
    monkeypatch.setattr(device_report, "_GPU_READ_BYTES", 1 << 20)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_right_product_and_a_right_attention_have_small_errors(dtype: torch.dtype) -> None:
    assert device_report._product_error(CPU, dtype) < 0.02
    assert device_report._attention_error(CPU, dtype) < 0.02


def test_other_dtypes_are_tried_where_the_chosen_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    found = device_report._compute(PLACEMENT)
    assert [*found["errors"]] == ["bfloat16"]
    assert found["read_gb_per_s"] > 0

    def product_error(_where: torch.device, dtype: torch.dtype) -> float:
        if dtype is torch.bfloat16:
            raise RuntimeError("CUDA error:\n no kernel")
        return 0.001 if dtype is torch.float16 else device_report._error(torch.tensor([torch.nan]), torch.ones(1))

    monkeypatch.setattr(device_report, "_product_error", product_error)
    errors = device_report._compute(PLACEMENT)["errors"]
    assert errors["bfloat16"] == "CUDA error: no kernel"
    assert errors["float16"] < 0.02
    assert errors["float32"] == "NaN"


def test_a_refused_load_is_reported_in_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_options: object) -> Placement:
        raise DeviceUnavailable("CUDA", ["cpu"])

    monkeypatch.setattr("backend.engine.ops.device.choose", refuse)
    placement, facts = device_report._gpu()
    assert placement is None
    assert facts["refusal"] == str(DeviceUnavailable("CUDA", ["cpu"]))


@pytest.mark.slow
def test_the_report_is_one_json_object_a_line() -> None:
    command = [sys.executable, "-m", device_report.__name__]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    facts: dict = {}
    for line in ended.stdout.splitlines():
        facts |= json.loads(line)
    assert facts["processor"]["torch"] == torch.__version__
    assert facts["processor"]["read_gb_per_s"] > 0.5
    assert facts["gpu"]["device"] == "cpu"
