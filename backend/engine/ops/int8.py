"""Linear layers in eight bits, a scale for each output, multiplied with inputs in eight bits, a scale for each row.

So a row's numbers do not depend on its neighbours. The modules give up their weights.

- On CPUs with AVX512-VNNI a few rows by our own C (csrc/gemv.c), where install.sh found a compiler, and more of
  them by oneDNN behind torch's product of eight bits (`_int_mm`). All layers of the 0.6B, two cores of an AMD EPYC:
  14 ms for one row, 21 for eight, 480 for 316; FBGEMM 17, 26 and 580.
- On other CPUs by FBGEMM behind torch's quantised operators. For one row and for eight, of 14 layers on one core: 7.4
  and 10.8 ms; weight-only int8 (`_weight_int8pack_mm`) 15.7 and 28.5, `_int_mm` 17.9 and 21.3. oneDNN's
  (`qlinear_pointwise`) takes a sixth more for one row on two cores.
- On CUDA and ROCm by torch's product of eight bits (`_int_mm`, which is cuBLASLt's), for which there are tensor cores;
  torch's weight-only product computes every output by itself there. Not yet run on a GPU.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.functional import pad

from backend.engine.ops import torch_ops
from backend.engine.ops.gemv import can_gemv, dequantized, gemv_int8, quantized, rescale_, scaled
from backend.engine.ops.linear import MAX_GEMV_ROWS, Layer, MakeLayer, stacked, strip

_AT_A_TIME = 1 << 17  # weights: as float32 they stay in a core's cache, and on the heap (engine/ops/malloc.py)
_AT_A_TIME_ON_GPUS = 1 << 24  # each is a launch; as float32 64 MiB beside the weights


def _in_eight_bits(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (outputs, inputs) from -127 to 127, and the scales (outputs,) in float32 by which to multiply them."""
    bytes_ = torch.empty_like(weight, dtype=torch.int8)
    scales = torch.empty_like(weight[:, 0], dtype=torch.float32)
    at_a_time = _AT_A_TIME if weight.device.type == "cpu" else _AT_A_TIME_ON_GPUS
    step = max(1, at_a_time // weight.shape[1])
    for at in range(0, weight.shape[0], step):
        rows = weight[at : at + step].to(torch.float32, copy=True)
        largest = (rows.abs().amax(dim=1) / 127).clamp_min_(torch_ops.SILENT)
        scales[at : at + step] = largest
        bytes_[at : at + step] = rows.div_(largest[:, None]).round_()
    return bytes_, scales


def _sums(weight: torch.Tensor) -> torch.Tensor:
    """Of each output's weights, (outputs,) in int32. Part by part: torch sums a copy of four times the bytes."""
    sums = torch.empty_like(weight[:, 0], dtype=torch.int32)
    step = max(1, _AT_A_TIME // weight.shape[1])
    for at in range(0, len(weight), step):
        torch.sum(weight[at : at + step], dim=1, dtype=torch.int32, out=sums[at : at + step])
    return sums


class StreamedInt8:
    """See Layer. x is float32; so is y. A few rows take as long as reading the weights does."""

    def __init__(self, weight: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None) -> None:
        """`weight` and `scales`: as `_in_eight_bits` gives them."""
        self._weight, self._scales = weight, scales
        self._shift = _sums(weight).mul_(128)
        self._bias = None if bias is None else bias.float()
        self.bytes = weight.numel() + 8 * len(weight)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])
        if len(rows) <= MAX_GEMV_ROWS:
            y = gemv_int8(rows, self._weight, self._scales, self._shift)
        else:
            bytes_, largest = quantized(rows)
            y = dequantized(torch._int_mm(bytes_, self._weight.t()), largest, self._scales)
        return (y if self._bias is None else y + self._bias).view(*x.shape[:-1], -1)


class FbgemmInt8:
    """See Layer. x is float32; so is y. To be packed before it is used."""

    def __init__(self, weight: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None) -> None:
        """`weight` and `scales`: as `_in_eight_bits` gives them."""
        with warnings.catch_warnings():
            # torch asks to move to torchao, which has no CPU kernel of this kind
            warnings.simplefilter("ignore")
            zeros = torch.zeros_like(scales, dtype=torch.long)
            self._unpacked: Any = torch._make_per_channel_quantized_tensor(weight, scales, zeros, 0)
        self._packed: Any = None
        self._bias = None if bias is None else bias.float()
        self.bytes = weight.numel() + 8 * weight.shape[0]

    def pack(self) -> None:
        """As FBGEMM multiplies it."""
        torch.backends.quantized.engine = "fbgemm"
        self._packed, self._unpacked = torch.ops.quantized.linear_prepack(self._unpacked, None), None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        rows, largest = scaled(x.reshape(-1, x.shape[-1]))
        y: torch.Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            rows, 1 / _STEPS, _STEPS + 1, self._packed
        )
        rescale_(y, largest)
        return (y if self._bias is None else y + self._bias).view(*x.shape[:-1], -1)


# An input of eight bits times a weight of eight, twice, overflows the 16 bits in which processors without VNNI add
_STEPS = 127 if torch.cpu._is_vnni_supported() else 63

_LEAST_ROWS = 32  # cuBLASLt takes more than 16, and tensor cores compute as many at once
_WIDTH = 8  # of which inputs and outputs must be a multiple there


class TensorCoreInt8:
    """See Layer. y is of x's dtype. It asks for no value, so it can be recorded."""

    def __init__(self, weight: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None) -> None:
        """`weight` and `scales`: as `_in_eight_bits` gives them."""
        self._scales = scales
        outputs, inputs = weight.shape
        self._weight = pad(weight, (0, -inputs % _WIDTH, 0, -outputs % _WIDTH))
        self._bias = bias
        self.bytes = self._weight.numel() + 4 * outputs

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        rows, largest = torch_ops.scaled(x.reshape(-1, x.shape[-1]).float())
        bytes_ = (rows * 127).round_().to(torch.int8)
        wider, longer = self._weight.shape[1] - rows.shape[1], max(0, _LEAST_ROWS - len(rows))
        products = torch._int_mm(pad(bytes_, (0, wider, 0, longer)), self._weight.t())
        y = (products[: len(rows), : len(self._scales)] * (largest / 127) * self._scales).to(x.dtype)
        return (y if self._bias is None else y + self._bias).view(*x.shape[:-1], -1)


def can_quantize(device: torch.device) -> bool:
    """Whether `int8_layers` compute there."""
    if device.type != "cuda":  # which ROCm is called, too
        return device.type == "cpu"
    bytes_ = torch.ones(_LEAST_ROWS, _LEAST_ROWS, dtype=torch.int8, device=device)
    try:
        return bool((torch._int_mm(bytes_, bytes_.t()) == _LEAST_ROWS).all())
    except RuntimeError:  # older than what cuBLASLt knows it for, or of a build without it
        return False


_PACKED_AT_ONCE = 2


@contextmanager
def int8_layers() -> Iterator[MakeLayer]:
    """`with int8_layers() as int8:` makes the same as `dense`, in eight bits, to be used afterwards.

    The modules are left without weights. Layers are packed in threads while the next are read: FBGEMM takes one core
    for each of them, and a third of a load.
    """
    with ThreadPoolExecutor(_PACKED_AT_ONCE, "pack") as threads:
        packing: set[Future[None]] = set()

        def int8(modules: Sequence[nn.Linear]) -> Layer:
            weight, bias = stacked(modules)
            bytes_, scales = _in_eight_bits(weight)
            del weight
            strip(modules)
            if bytes_.device.type != "cpu":
                return TensorCoreInt8(bytes_, scales, bias)
            if can_gemv(bytes_):
                return StreamedInt8(bytes_, scales, bias)
            layer = FbgemmInt8(bytes_, scales, bias)
            del bytes_
            if len(packing) == _PACKED_AT_ONCE:  # what waits takes memory
                finish(FIRST_COMPLETED)
            packing.add(threads.submit(layer.pack))
            return layer

        def finish(when: str) -> None:
            for done in wait(packing, return_when=when).done:
                packing.remove(done)
                done.result()

        yield int8
        finish(ALL_COMPLETED)
