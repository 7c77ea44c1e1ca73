"""GEMV in bf16 and int8 (csrc/gemv.c), and int8 quantisation of rows (csrc/rowwise.c), on CPUs."""

from __future__ import annotations

import ctypes
from typing import Any

import torch

from backend.engine.ops import native, torch_ops
from backend.engine.ops.native_args import GemvArgs
from backend.engine.ops.torch_private import avx512_allowed


def scale_by_absmax(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """As torch_ops.scale_by_absmax, on a CPU."""
    if native.library is None:
        return torch_ops.scale_by_absmax(rows)
    rows = rows.contiguous()
    out, absmax = torch.empty_like(rows), rows.new_empty(len(rows), 1)
    native.library.scale_by_absmax(rows.data_ptr(), out.data_ptr(), absmax.data_ptr(), *rows.shape)
    return out, absmax


def rescale_(rows: torch.Tensor, absmax: torch.Tensor) -> None:
    """Multiply rows (rows, size) in float32 by their absmax (rows, 1), in place."""
    if native.library is None:
        rows *= absmax
    else:
        native.library.rescale(rows.data_ptr(), absmax.data_ptr(), *rows.shape)


def quantize(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows (rows, size) in float32 as int8 from -127 to 127, and each row's absmax (rows, 1), which 127 stands for.

    Needs the library.
    """
    rows = rows.contiguous()
    out, absmax = torch.empty_like(rows, dtype=torch.int8), rows.new_empty(len(rows), 1)
    native.library.quantize(rows.data_ptr(), out.data_ptr(), absmax.data_ptr(), *rows.shape)
    return out, absmax


def dequantize_(sums: torch.Tensor, absmax: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """int32 accumulators of an int8 product, (rows, outputs), to float32 in the same memory.

    `absmax`: of the rows, as `quantize` gives it; `scales` (outputs,): of the weights. Needs the library.
    """
    out = sums.view(torch.float32)
    native.library.dequantize(sums.data_ptr(), out.data_ptr(), absmax.data_ptr(), scales.data_ptr(), *sums.shape)
    return out


def can_gemv(weight: torch.Tensor) -> bool:
    """Whether `gemv_bf16` or `gemv_int8`, by the weight's dtype, takes a weight (outputs, inputs) on this processor."""
    if native.library is None or weight.device.type != "cpu" or not weight.is_contiguous():
        return False
    if len(weight) % native.limits["gemv_outputs_multiple"]:
        return False
    if weight.shape[1] * weight.itemsize % native.limits["gemv_line_bytes"]:
        return False
    available = {torch.bfloat16: native.library.has_gemv_bf16, torch.int8: native.library.has_gemv_int8}
    return avx512_allowed() and weight.dtype in available and bool(available[weight.dtype]())


def gemv_bf16(rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """x Wᵀ of a few rows (…, inputs) in bf16 -> (…, outputs). Only where `can_gemv`."""
    rows = rows.contiguous()
    out = rows.new_empty(*rows.shape[:-1], len(weight))
    count = rows.numel() // rows.shape[-1]
    _call(native.library.gemv_bf16, rows=rows, weight=weight, out=out, count=count)
    return out


def gemv_int8(rows: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """x Wᵀ of a few rows (rows, inputs) in float32 -> (rows, outputs), with x quantised as by `quantize`.

    `scales` (outputs,): by which to multiply the weight; `shift` (outputs,) in int32: 128 times the sum of an output's
    weights. Only where `can_gemv`.
    """
    rows = rows.contiguous()
    quantized, absmax = torch.empty_like(rows, dtype=torch.int8), rows.new_empty(len(rows))
    out = rows.new_empty(len(rows), len(weight))
    _call(
        native.library.gemv_int8,
        activations=rows, rows=quantized, absmax=absmax, weight=weight, scales=scales, shift=shift, out=out,
        count=len(rows),
    )  # fmt: skip
    return out


def _call(kernel: Any, *, weight: torch.Tensor, count: int, **tensors: torch.Tensor) -> None:
    pointers = {name: tensor.data_ptr() for name, tensor in tensors.items()}
    outputs, inputs = weight.shape
    kernel(ctypes.byref(GemvArgs(weight=weight.data_ptr(), count=count, outputs=outputs, inputs=inputs, **pointers)))
