"""Every private entry point of torch that the backend uses: names with an underscore, and operators of torch.ops.

The rules: no other file of backend/ touches one (test/engine/ops/test_torch_private.py), each has one small function
here, and a test calls each in the pinned torch. So this file and its test are what to read before torch is bumped. The
docstrings say what each does, since when torch has it as far as its pull requests tell, and what would replace it.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

import torch
from torch import nn

Activation: TypeAlias = Literal["none", "gelu"]  # torch's names for what oneDNN fuses; GELU is the exact one
PackedWeight: TypeAlias = Any  # a torch class without a type


# Instruction sets of the CPU. Replacement: torch.backends.cpu.get_cpu_capability, once it names more than AVX512.


def avx512_allowed() -> bool:
    """Whether ATEN_CPU_CAPABILITY, torch's own switch, leaves AVX-512 in use; our C kernels obey it as well."""
    return os.environ.get("ATEN_CPU_CAPABILITY", "").lower() not in ("avx2", "default")


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bf16 itself, with AVX512-BF16 or AMX, and may."""
    return avx512_allowed() and bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def cpu_has_vnni() -> bool:
    """Whether the processor has the int8 dot product of AVX512-VNNI."""
    return bool(torch.cpu._is_vnni_supported())


# oneDNN, which torch calls mkldnn. The operators are as old as torch.compile, whose CPU code calls them. Replacement:
# none but torch.compile. Where device.onednn_supports says no, torch.nn.functional computes the same.


# Whether this torch has oneDNN and may use it, when the process began. Replacement: torch.backends.mkldnn.is_available.
ONEDNN_ENABLED: bool = torch._C._get_mkldnn_enabled()


def onednn_has_bf16() -> bool:
    """Whether oneDNN computes in bf16 on this processor, emulated or not."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@contextmanager
def without_onednn() -> Iterator[None]:
    """Within, torch computes without oneDNN. A flag of the process, not of the thread.

    Afterwards it is as when the process began, not as before: of two threads that overlap, the second would find the
    flag off and leave it off for good. Hence not torch.backends.mkldnn.flags(enabled=False), which restores what it
    found.
    """
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(ONEDNN_ENABLED)


def onednn_linear(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, activation: Activation = "none"
) -> torch.Tensor:
    """activation(x Wᵀ + b). `weight`: (outputs, inputs) as it is, or from `onednn_pack_linear`."""
    y: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], "none")
    return y


def onednn_pack_linear(weight: torch.Tensor) -> torch.Tensor:
    """The weight in the order in which oneDNN multiplies, for `onednn_linear`; a copy."""
    packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
    return packed


def onednn_conv2d(x: torch.Tensor, convolution: nn.Conv2d, activation: Activation = "none") -> torch.Tensor:
    """activation(convolution(x)), for a convolution of one group with padding in numbers."""
    y: torch.Tensor = torch.ops.mkldnn._convolution_pointwise(
        x, convolution.weight, convolution.bias, convolution.padding, convolution.stride, convolution.dilation, 1,
        activation, [], "none",
    )  # fmt: skip
    return y


# int8


def int_mm(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """int8 (rows, inputs) times int8 (inputs, outputs) -> int32, by cuBLASLt on GPUs and by oneDNN on CPUs.

    On GPUs since 2023 (pytorch pull 96685), on CPUs since 2024 (pull 121792). Replacement: torch.mm with
    out_dtype=torch.int32, once it takes int8 (asked for in pytorch issue 121647).
    """
    return torch._int_mm(left, right)


def fbgemm_weight(weight: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """int8 (outputs, inputs) and its scales (outputs,) as a quantised tensor of torch, for `fbgemm_pack`.

    Without the roundings of torch.quantize_per_channel, which takes float weights. Replacement: torchao, once it has an
    int8 CPU kernel with a scale for each row; torch's warning that asks to move there is silenced.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zero_points = torch.zeros_like(scales, dtype=torch.long)
        return torch._make_per_channel_quantized_tensor(weight, scales, zero_points, 0)


def fbgemm_pack(weight: torch.Tensor) -> PackedWeight:
    """The weight as FBGEMM multiplies it, for `fbgemm_linear`; a copy. Selects FBGEMM for the whole process."""
    torch.backends.quantized.engine = "fbgemm"
    return torch.ops.quantized.linear_prepack(weight, None)


def fbgemm_linear(x: torch.Tensor, weight: PackedWeight, scale: float, zero_point: int) -> torch.Tensor:
    """x Wᵀ in float32, with x rounded to unsigned bytes: x ≈ (byte - zero_point) * scale.

    One operation that quantises, multiplies and dequantises; since torch 2.0 (pytorch pull 89882). Replacement: as of
    `fbgemm_weight`.
    """
    y: torch.Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(x, scale, zero_point, weight)
    return y
