"""torch's own switch, ATEN_CPU_CAPABILITY, leaves AVX-512 out of our kernels as well."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from backend.engine.ops import native, torch_private
from backend.engine.ops.gemv import can_gemv
from backend.engine.ops.prefill_attention import can_attend


@pytest.fixture
def avx512(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor that has all that the kernels and bf16 need."""
    yes = dict.fromkeys(("has_gemv_bf16", "has_gemv_int8", "has_prefill_attention"), lambda: 1)
    limits = {"gemv_outputs_multiple": 16, "gemv_line_bytes": 64, "prefill_block": 32}
    monkeypatch.setattr(native, "library", SimpleNamespace(**yes))
    monkeypatch.setattr(native, "limits", limits)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)


@pytest.mark.parametrize(
    ("capability", "is_used"), [(None, True), ("", True), ("avx512", True), ("avx2", False), ("default", False)]
)
def test_the_kernels_obey_the_switch_of_torch(monkeypatch, avx512: None, capability: str | None, is_used: bool) -> None:
    if capability is None:
        monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    else:
        monkeypatch.setenv("ATEN_CPU_CAPABILITY", capability)
    assert can_gemv(torch.zeros(16, 64, dtype=torch.bfloat16)) is is_used
    assert can_gemv(torch.zeros(16, 64, dtype=torch.int8)) is is_used
    assert can_attend(torch.zeros(2, 32, dtype=torch.bfloat16)) is is_used
    assert torch_private.cpu_has_bf16() is is_used
