"""Linear layers as the models use them: stacked where they share their input, in the numbers that were asked for.

- `dense`: the modules' own weights. Stacked modules become views of the stack, so there is one copy. On CPUs that
  multiply bf16, where install.sh found a compiler, a few rows of them are our own C's (csrc/gemv.c).
- `streamed`: as `dense` on such machines, `packed` on others: for a decoder, whose steps have a few rows. All layers of
  the 0.6B, the same cores: one row takes 27 ms instead of 42, which is what reading the memory takes, eight rows 45
  instead of 50; a prompt, whose weights oneDNN then lays out each time, 40 ms more.
- `packed`: on CPUs, in the order in which oneDNN multiplies. The modules give up their weights. All layers of the 0.6B,
  two cores of an AMD EPYC: eight rows in bf16 take 33 ms instead of 54, 540 rows 0.69 s instead of 0.75; in float32,
  where torch would ask MKL, one row takes 60 ms instead of 104, eight 74 instead of 194, 540 rows 1.1 s instead of 2.8.

In eight bits: engine/ops/int8.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, Protocol, TypeAlias

import torch
from torch import nn
from torch.nn.functional import linear

from backend.engine.ops.device import ONEDNN, onednn_takes
from backend.engine.ops.gemv import can_gemv, gemv_bf16


class Layer(Protocol):
    """y = x Wᵀ + b, (…, inputs) -> (…, outputs)."""

    bytes: int  # beyond the model's own parameters

    def __call__(self, x: torch.Tensor) -> torch.Tensor: ...


MakeLayer: TypeAlias = Callable[[Sequence[nn.Linear]], Layer]


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


MAX_GEMV_ROWS = 16  # rows: as fast for so many as a library is


class Dense:
    """y = x Wᵀ + b."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.weight = weight
        self.bias = bias
        self.bytes = 0
        self._by_mkl = weight.dtype is torch.float32 and onednn_takes(weight)  # if torch had its way

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self._by_mkl:
            return _by_onednn(x, self.weight, self.bias)
        if x.numel() > x.shape[-1] or self.weight.dtype is not torch.bfloat16:
            return linear(x, self.weight, self.bias)
        with _without_onednn():
            return linear(x, self.weight, self.bias)


class Streamed(Dense):
    """y = x Wᵀ + b, a few rows as fast as the weights can be read."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if x.numel() > MAX_GEMV_ROWS * x.shape[-1]:
            return linear(x, self.weight, self.bias)
        y = gemv_bf16(x, self.weight)
        return y if self.bias is None else y + self.bias


def dense(modules: Sequence[nn.Linear]) -> Dense:
    """Layers with one input as one layer, whose output is theirs side by side."""
    weight, bias = stacked(modules)
    at = 0
    for module in modules if len(modules) > 1 else ():
        module.weight = nn.Parameter(weight[at : at + module.out_features], requires_grad=False)
        at += module.out_features
    return Streamed(weight, bias) if can_gemv(weight) else Dense(weight, bias)


def stacked(modules: Sequence[nn.Linear]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weight and bias of layers with one input as one layer's."""
    if len(modules) == 1:
        return modules[0].weight, modules[0].bias
    with torch.no_grad():
        bias = None if modules[0].bias is None else torch.cat([module.bias for module in modules])
        return _one_behind_the_other([module.weight for module in modules]), bias


def _one_behind_the_other(weights: Sequence[torch.Tensor]) -> torch.Tensor:
    """(outputs, inputs) of all of them; copied, unless they lie like that."""
    first, outputs = weights[0], sum(len(weight) for weight in weights)
    ends = [weight.data_ptr() + weight.nbytes for weight in weights]
    same = all(weight.untyped_storage().data_ptr() == first.untyped_storage().data_ptr() for weight in weights)
    if same and ends[:-1] == [weight.data_ptr() for weight in weights[1:]]:
        return first.as_strided((outputs, first.shape[1]), first.stride())
    return torch.cat(list(weights))


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
    layer = Packed(*stacked(modules))
    strip(modules)
    return layer


def streamed(modules: Sequence[nn.Linear]) -> Packed | Dense:
    """As `dense` where that sweeps, and as `packed` elsewhere."""
    layer = dense(modules)
    return layer if isinstance(layer, Streamed) else packed(modules)


def pack_within(model: nn.Module, fill: Callable[[Sequence[nn.Linear]], None]) -> None:
    """Put packed layers in the place of a model's linear ones, but for those whose weights are an embedding's, too.

    `fill` reads what modules need, one layer at a time: what one is made from is given up before the next.
    """
    embedded = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
    for parent in list(model.modules()):
        for name, part in parent.named_children():
            if type(part) is nn.Linear and id(part.weight) not in embedded:
                fill([part])
                if onednn_takes(part.weight):
                    setattr(parent, name, packed([part]))


def strip(modules: Sequence[nn.Linear]) -> None:
    """Leave modules without weights."""
    for module in modules:
        module.weight = nn.Parameter(module.weight.new_empty(0), requires_grad=False)
