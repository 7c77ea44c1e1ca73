"""A few rows times weights in C (csrc/gemv.c), and numbers into eight bits and back (csrc/rowwise.c)."""

from __future__ import annotations

import ctypes
from typing import Any

import torch

from backend.engine.ops import native, torch_ops
from backend.engine.ops.native import COUNT, POINTER

_SUMS, _LINE = 16, 64  # as in gemv.c


class _Product(ctypes.Structure):
    """`Product` of gemv.c, where each field is explained."""

    _fields_ = (
        *((name, POINTER) for name in ("rows", "weight", "numbers", "largest", "scales", "shift", "out")),
        *((name, COUNT) for name in ("count", "outputs", "inputs")),
    )


def scaled(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """As torch_ops.scaled, on a CPU."""
    if native.library is None:
        return torch_ops.scaled(rows)
    rows = rows.contiguous()
    out, largest = torch.empty_like(rows), rows.new_empty(len(rows), 1)
    native.library.scale(rows.data_ptr(), out.data_ptr(), largest.data_ptr(), *rows.shape)
    return out, largest


def rescale_(rows: torch.Tensor, largest: torch.Tensor) -> None:
    """Rows (rows, size) in float32, each times its `largest`."""
    if native.library is None:
        rows *= largest
    else:
        native.library.rescale(rows.data_ptr(), largest.data_ptr(), *rows.shape)


def quantized(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows (rows, size) in float32 as bytes from -127 to 127, and what 127 stands for in each, (rows, 1)."""
    rows = rows.contiguous()
    out, largest = torch.empty_like(rows, dtype=torch.int8), rows.new_empty(len(rows), 1)
    native.library.quantize(rows.data_ptr(), out.data_ptr(), largest.data_ptr(), *rows.shape)
    return out, largest


def dequantized(sums: torch.Tensor, largest: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """What sums of products of bytes stand for, in their place: (rows, outputs), in float32 where they were int32."""
    out = sums.view(torch.float32)
    native.library.dequantize(sums.data_ptr(), out.data_ptr(), largest.data_ptr(), scales.data_ptr(), *sums.shape)
    return out


def can_gemv(weight: torch.Tensor) -> bool:
    """Whether `product` and `gemv_int8` take such weights (outputs, inputs): of bf16, and of int8."""
    if native.library is None or weight.device.type != "cpu" or not weight.is_contiguous():
        return False
    if len(weight) % _SUMS or weight.shape[1] * weight.itemsize % _LINE:
        return False
    multiplies = {torch.bfloat16: native.library.multiplies_halves, torch.int8: native.library.multiplies_bytes}
    return weight.dtype in multiplies and bool(multiplies[weight.dtype]())


def gemv_bf16(rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """x Wᵀ of a few rows (…, inputs) in bf16, (…, outputs)."""
    rows = rows.contiguous()
    out = rows.new_empty(*rows.shape[:-1], len(weight))
    count = rows.numel() // rows.shape[-1]
    _call(native.library.multiply_halves, rows=rows, weight=weight, out=out, count=count)
    return out


def gemv_int8(rows: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """x Wᵀ of a few rows (rows, inputs) in float32, (rows, outputs), by way of bytes as `quantized` gives them.

    `scales` (outputs,): what 1 stands for in a weight; `shift` (outputs,): the sums of an output's weights times 128,
    in int32.
    """
    rows = rows.contiguous()
    bytes_, largest = torch.empty_like(rows, dtype=torch.int8), rows.new_empty(len(rows))
    out = rows.new_empty(len(rows), len(weight))
    _call(
        native.library.multiply_bytes,
        numbers=rows, rows=bytes_, largest=largest, weight=weight, scales=scales, shift=shift, out=out, count=len(rows),
    )  # fmt: skip
    return out


def _call(multiply: Any, *, weight: torch.Tensor, count: int, **tensors: torch.Tensor) -> None:
    pointers = {name: tensor.data_ptr() for name, tensor in tensors.items()}
    outputs, inputs = weight.shape
    multiply(ctypes.byref(_Product(weight=weight.data_ptr(), count=count, outputs=outputs, inputs=inputs, **pointers)))
