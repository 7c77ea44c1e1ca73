"""int8 linear layers (W8A8): weights have a scale for each output; inputs are quantised at each call, with one a row.

A row's numbers do not depend on the other rows of its batch. The modules give up their weights. Three implementations:

- StreamedInt8, on CPUs with AVX512-VNNI and a compiler: a few rows by our own GEMV (csrc/gemv.c), more by oneDNN
  (torch's `_int_mm`). All layers of the 0.6B, two cores of an AMD EPYC: 14 ms for one row, 21 for eight, 480 for 316;
  by FBGEMM 17, 26 and 580.
- FbgemmInt8, on other CPUs. oneDNN (qlinear_pointwise, packed weights) instead takes, on an AMD EPYC with AVX2 and no
  VNNI, at the 0.6B's layer shapes, two threads, alternating: 0.95 to 1.09 times as long for 320 rows, but 1.3 to 4.2
  times for one row and for eight, so FBGEMM stays; `_int_mm` takes 19 to 56 times as long for 320 rows there. On a
  processor with VNNI, 14 layers on one core, one row and eight: FBGEMM 7.4 and 10.8 ms, weight-only int8
  (`_weight_int8pack_mm`) 15.7 and 28.5, `_int_mm` 17.9 and 21.3.
- TensorCoreInt8, on CUDA and ROCm, by cuBLASLt (`_int_mm`), which uses tensor cores; torch's weight-only int8 product
  computes each output by itself there. Not yet run on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.functional import pad

from backend.engine.ops import torch_ops, torch_private
from backend.engine.ops.gemv import can_gemv, dequantize_, gemv_int8, quantize, rescale_, scale_by_absmax
from backend.engine.ops.linear import MAX_GEMV_ROWS, Layer, MakeLayer, drop_weights, stack_weights

# Weights are quantised part by part. On CPUs a part of so many weights stays in a core's cache and on the heap
# (malloc.py) as float32; on GPUs each part is several launches, and takes 64 MiB as float32.
_PART_ON_CPU = 1 << 17
_PART_ON_GPU = 1 << 24


def _quantize_weight(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight (outputs, inputs) as int8 from -127 to 127, and the scales (outputs,) in float32 to multiply it by."""
    quantized = torch.empty_like(weight, dtype=torch.int8)
    scales = torch.empty_like(weight[:, 0], dtype=torch.float32)
    part = _PART_ON_CPU if weight.device.type == "cpu" else _PART_ON_GPU
    step = max(1, part // weight.shape[1])
    for at in range(0, weight.shape[0], step):
        rows = weight[at : at + step].to(torch.float32, copy=True)
        absmax = (rows.abs().amax(dim=1) / 127).clamp_min_(torch_ops.MIN_ABSMAX)
        scales[at : at + step] = absmax
        quantized[at : at + step] = rows.div_(absmax[:, None]).round_()
    return quantized, scales


def _weight_sums(weight: torch.Tensor) -> torch.Tensor:
    """The sum of each output's int8 weights, (outputs,) in int32. Part by part, because torch sums an int32 copy."""
    sums = torch.empty_like(weight[:, 0], dtype=torch.int32)
    step = max(1, _PART_ON_CPU // weight.shape[1])
    for at in range(0, len(weight), step):
        torch.sum(weight[at : at + step], dim=1, dtype=torch.int32, out=sums[at : at + step])
    return sums


class StreamedInt8:
    """See Layer. x and y are float32. A few rows take as long as reading the weights."""

    def __init__(self, weight: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None) -> None:
        """`weight` and `scales`: from `_quantize_weight`."""
        self._weight, self._scales = weight, scales
        self._shift = _weight_sums(weight).mul_(128)
        self._bias = None if bias is None else bias.float()
        self.bytes = weight.numel() + 8 * len(weight)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])
        if len(rows) <= MAX_GEMV_ROWS:
            y = gemv_int8(rows, self._weight, self._scales, self._shift)
        else:
            quantized, absmax = quantize(rows)
            y = dequantize_(torch_private.int_mm(quantized, self._weight.t()), absmax, self._scales)
        return (y if self._bias is None else y + self._bias).view(*x.shape[:-1], -1)


# int8 inputs are from -FBGEMM_STEPS to FBGEMM_STEPS. Without VNNI, FBGEMM adds two products of an input and a weight in
# 16 bits, which 127 would overflow.
FBGEMM_STEPS = 127 if torch_private.cpu_has_vnni() else 63


class FbgemmInt8:
    """See Layer. x and y are float32. `pack` must be called before the first use."""

    def __init__(self, weight: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None) -> None:
        """`weight` and `scales`: from `_quantize_weight`."""
        self._unpacked: torch.Tensor | None = torch_private.fbgemm_weight(weight, scales)
        self._packed: torch_private.PackedWeight = None
        self._bias = None if bias is None else bias.float()
        self.bytes = weight.numel() + 8 * weight.shape[0]

    def pack(self) -> None:
        assert self._unpacked is not None
        self._packed, self._unpacked = torch_private.fbgemm_pack(self._unpacked), None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        rows, absmax = scale_by_absmax(x.reshape(-1, x.shape[-1]))
        y = torch_private.fbgemm_linear(rows, self._packed, 1 / FBGEMM_STEPS, FBGEMM_STEPS + 1)
        rescale_(y, absmax)
        return (y if self._bias is None else y + self._bias).view(*x.shape[:-1], -1)


_MIN_ROWS = 32  # cuBLASLt takes more than 16 rows, and tensor cores compute 32 in the same time
_MULTIPLE = 8  # of which inputs and outputs must be a multiple for cuBLASLt


class TensorCoreInt8:
    """See Layer. y has x's dtype. It asks the device for no value, so a CUDA graph can record it."""

    def __init__(self, weight: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None) -> None:
        """`weight` and `scales`: from `_quantize_weight`."""
        self._scales = scales
        outputs, inputs = weight.shape
        self._weight = pad(weight, (0, -inputs % _MULTIPLE, 0, -outputs % _MULTIPLE))
        self._bias = bias
        self.bytes = self._weight.numel() + 4 * outputs

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        rows, absmax = torch_ops.scale_by_absmax(x.reshape(-1, x.shape[-1]).float())
        quantized = (rows * 127).round_().to(torch.int8)
        more_inputs, more_rows = self._weight.shape[1] - rows.shape[1], max(0, _MIN_ROWS - len(rows))
        sums = torch_private.int_mm(pad(quantized, (0, more_inputs, 0, more_rows)), self._weight.t())
        y = (sums[: len(rows), : len(self._scales)] * (absmax / 127) * self._scales).to(x.dtype)
        return (y if self._bias is None else y + self._bias).view(*x.shape[:-1], -1)


def can_quantize(device: torch.device) -> bool:
    """Whether int8 layers compute on the device."""
    if device.type != "cuda":  # ROCm is "cuda", too
        return device.type == "cpu"
    ones = torch.ones(_MIN_ROWS, _MIN_ROWS, dtype=torch.int8, device=device)
    try:
        return bool((torch_private.int_mm(ones, ones.t()) == _MIN_ROWS).all())
    except RuntimeError:  # a GPU that cuBLASLt's int8 does not know, or a build of torch without it
        return False


_MAX_PACKING = 2  # layers that are packed at once, and threads that pack them


@contextmanager
def int8_layers() -> Iterator[MakeLayer]:
    """`with int8_layers() as make:` gives a MakeLayer of int8 layers, which can be used after the `with` block.

    The modules are left without weights. FBGEMM's packing takes one core for each layer and a third of a load, so
    layers are packed in threads while the next ones are read.
    """
    with ThreadPoolExecutor(_MAX_PACKING, "pack") as threads:
        packing: set[Future[None]] = set()

        def make(modules: Sequence[nn.Linear]) -> Layer:
            weight, bias = stack_weights(modules)
            quantized, scales = _quantize_weight(weight)
            del weight
            drop_weights(modules)
            if quantized.device.type != "cpu":
                return TensorCoreInt8(quantized, scales, bias)
            if can_gemv(quantized):
                return StreamedInt8(quantized, scales, bias)
            layer = FbgemmInt8(quantized, scales, bias)
            del quantized
            if len(packing) == _MAX_PACKING:  # unpacked layers that wait take memory
                finish(FIRST_COMPLETED)
            packing.add(threads.submit(layer.pack))
            return layer

        def finish(when: str) -> None:
            for done in wait(packing, return_when=when).done:
                packing.remove(done)
                done.result()

        yield make
        finish(ALL_COMPLETED)
