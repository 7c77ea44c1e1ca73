"""Linear layers as the decoder uses them: stacked where they share their input, in the numbers that were asked for.

- `dense`: the modules' own weights. Stacked modules become views of the stack, so there is one copy.
- `int8`: weights in eight bits, a scale for each output, multiplied with inputs in eight bits, a scale for each row
  (so that a row's numbers do not depend on its neighbours), by FBGEMM behind torch's quantised operators. The modules
  give up their weights. For one row and for eight, of 14 layers of the 0.6B on one core: 7.4 and 10.8 ms; bf16 29.4 and
  32.3, weight-only int8 (`_weight_int8pack_mm`) 15.7 and 28.5, `_int_mm` 17.9 and 21.3.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear

_ONEDNN = torch._C._get_mkldnn_enabled()

MakeLayer = Callable[[Sequence[nn.Linear]], "Dense | Int8"]


@contextmanager
def _without_onednn() -> Iterator[None]:
    """For one row torch's own product of a bf16 matrix and a vector takes half of the time that oneDNN's takes.

    A flag of the process: two threads that compute at once, as in a load beside requests, lose time and nothing else.
    """
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(_ONEDNN)


class Dense:
    """y = x Wᵀ + b."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.weight = weight
        self.bias = bias
        self.bytes = 0  # beyond the model's own parameters

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if x.numel() > x.shape[-1] or self.weight.dtype is not torch.bfloat16:
            return linear(x, self.weight, self.bias)
        with _without_onednn():
            return linear(x, self.weight, self.bias)


def dense(modules: Sequence[nn.Linear]) -> Dense:
    """Layers with one input as one layer, whose output is theirs side by side."""
    weight, bias = _stacked(modules)
    at = 0
    for module in modules if len(modules) > 1 else ():
        module.weight = nn.Parameter(weight[at : at + module.out_features], requires_grad=False)
        at += module.out_features
    return Dense(weight, bias)


def _stacked(modules: Sequence[nn.Linear]) -> tuple[torch.Tensor, torch.Tensor | None]:
    if len(modules) == 1:
        return modules[0].weight, modules[0].bias
    with torch.no_grad():
        bias = None if modules[0].bias is None else torch.cat([module.bias for module in modules])
        return torch.cat([module.weight for module in modules]), bias


_AT_A_TIME = 1 << 17  # weights: as float32 they stay in a core's cache, and on the heap (engine/heap.py)


class Int8:
    """y = x Wᵀ + b in eight bits. x is float32; so is y. To be packed before it is used."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        bytes_ = torch.empty(weight.shape, dtype=torch.int8)
        scales = torch.empty(weight.shape[0])
        step = max(1, _AT_A_TIME // weight.shape[1])
        for at in range(0, weight.shape[0], step):
            rows = weight[at : at + step].to(torch.float32, copy=True)
            largest = (rows.abs().amax(dim=1) / 127).clamp_min_(1e-12)
            scales[at : at + step] = largest
            bytes_[at : at + step] = rows.div_(largest[:, None]).round_()
        with warnings.catch_warnings():
            # torch asks to move to torchao, which has no CPU kernel of this kind
            warnings.simplefilter("ignore")
            zeros = torch.zeros_like(scales, dtype=torch.long)
            self._unpacked: Any = torch._make_per_channel_quantized_tensor(bytes_, scales, zeros, 0)
        self._packed: Any = None
        self._bias = None if bias is None else bias.float()
        self.bytes = weight.numel() + 8 * weight.shape[0]

    def pack(self) -> None:
        """As FBGEMM multiplies it."""
        torch.backends.quantized.engine = "fbgemm"
        self._packed, self._unpacked = torch.ops.quantized.linear_prepack(self._unpacked, None), None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])
        largest = rows.abs().amax(dim=1, keepdim=True).clamp_min_(1e-12)
        y: torch.Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            rows / largest, 1 / _STEPS, _STEPS + 1, self._packed
        )
        y *= largest
        return (y if self._bias is None else y + self._bias).view(*x.shape[:-1], -1)


# An input of eight bits times a weight of eight, twice, overflows the 16 bits in which processors without VNNI add
_STEPS = 127 if torch.cpu._is_vnni_supported() else 63


_PACKED_AT_ONCE = 2


@contextmanager
def int8_layers() -> Iterator[MakeLayer]:
    """`with int8_layers() as int8:` makes the same as `dense`, in eight bits, to be used afterwards.

    The modules are left without weights. Layers are packed in threads while the next are read: FBGEMM takes one core
    for each of them, and a third of a load.
    """
    with ThreadPoolExecutor(_PACKED_AT_ONCE, "pack") as threads:
        packing: set[Future[None]] = set()

        def int8(modules: Sequence[nn.Linear]) -> Int8:
            layer = Int8(*_stacked(modules))
            for module in modules:
                module.weight = nn.Parameter(module.weight.new_empty(0), requires_grad=False)
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
