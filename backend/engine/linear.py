"""Linear layers as the models use them: stacked where they share their input, in the numbers that were asked for.

- `dense`: the modules' own weights. Stacked modules become views of the stack, so there is one copy.
- `packed`: on CPUs, in the order in which oneDNN multiplies. The modules give up their weights. All layers of the 0.6B,
  two cores of an AMD EPYC: eight rows in bf16 take 33 ms instead of 54, 540 rows 0.69 s instead of 0.75; in float32,
  where torch would ask MKL, one row takes 60 ms instead of 104, eight 74 instead of 194, 540 rows 1.1 s instead of 2.8.
- `int8_layers`: weights in eight bits, a scale for each output, multiplied with inputs in eight bits, a scale for each
  row (so that a row's numbers do not depend on its neighbours), by FBGEMM behind torch's quantised operators. The
  modules give up their weights. For one row and for eight, of 14 layers of the 0.6B on one core: 7.4 and 10.8 ms;
  weight-only int8 (`_weight_int8pack_mm`) 15.7 and 28.5, `_int_mm` 17.9 and 21.3.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.functional import linear

from backend.engine.compiled import rescale_, scaled
from backend.engine.device import ONEDNN, onednn_takes

MakeLayer = Callable[[Sequence[nn.Linear]], "Dense | Packed | Int8"]


@contextmanager
def _without_onednn() -> Iterator[None]:
    """For one row torch's own product of a bf16 matrix and a vector takes half of the time that oneDNN's takes.

    A flag of the process: two threads that compute at once, as in a load beside requests, lose time and nothing else.
    """
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(ONEDNN)


def _by_onednn(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, then: str = "none") -> torch.Tensor:
    """`then`: the activation, in torch's name of it; GELU is the exact one."""
    y: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, then, [], "none")
    return y


class Dense:
    """y = x Wᵀ + b."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.weight = weight
        self.bias = bias
        self.bytes = 0  # beyond the model's own parameters
        self._by_mkl = weight.dtype is torch.float32 and onednn_takes(weight)  # if torch had its way

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self._by_mkl:
            return _by_onednn(x, self.weight, self.bias)
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


class Packed(nn.Module):
    """y = x Wᵀ + b, and an activation. A module, so that it can take a linear layer's place in a model."""

    then: Literal["none", "gelu"] = "none"

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight)
        self.bias = bias  # which stays a parameter where it was one
        self.bytes = weight.nbytes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _by_onednn(x, self._weight, self.bias, self.then)


def packed(modules: Sequence[nn.Linear]) -> Packed | Dense:
    """The same as `dense`, packed where that can be; then the modules are left without weights."""
    if not onednn_takes(modules[0].weight):
        return dense(modules)
    layer = Packed(*_stacked(modules))
    _strip(modules)
    return layer


def pack_within(model: nn.Module, fill: Callable[[Sequence[nn.Module]], None]) -> None:
    """Put packed layers in the place of a model's linear ones, but for those whose weights are an embedding's, too.

    `fill` reads what modules need, one layer at a time: what it is made from is gone before the next.
    """
    embedded = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
    for parent in list(model.modules()):
        for name, part in parent.named_children():
            if type(part) is nn.Linear and id(part.weight) not in embedded:
                fill([part])
                if onednn_takes(part.weight):
                    setattr(parent, name, packed([part]))


def _strip(modules: Sequence[nn.Linear]) -> None:
    for module in modules:
        module.weight = nn.Parameter(module.weight.new_empty(0), requires_grad=False)


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
        rows, largest = scaled(rows)
        y: torch.Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            rows, 1 / _STEPS, _STEPS + 1, self._packed
        )
        rescale_(y, largest)
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
            _strip(modules)
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
