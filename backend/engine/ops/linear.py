"""Linear layers as the models use them: layers with the same input stacked into one, in the given dtype.

- `dense_linear`: with the modules' own weights. Stacked modules become views of the stack, so there is one copy. It is
  a StreamedLinear where the C kernel takes the weight (bf16, csrc/gemv.c), else a DenseLinear.
- `packed_linear`: on CPUs, with weights in the order in which oneDNN multiplies. The modules give up their weights. All
  layers of the 0.6B on two cores of an AMD EPYC: eight rows in bf16 take 33 ms instead of 54, 540 rows 0.69 s instead
  of 0.75; in float32, which torch would give to MKL, one row takes 60 ms instead of 104, eight 74 instead of 194, 540
  rows 1.1 s instead of 2.8.
- `streamed_linear`: for a decoder, whose steps have a few rows: a StreamedLinear where that can be, else packed. All
  layers of the 0.6B, the same cores: one row takes 27 ms instead of 42, which is the time of reading the memory, eight
  rows 45 instead of 50; a prompt takes 40 ms more, because oneDNN then repacks the weights at each call.

In int8: engine/ops/int8.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

import torch
from torch import nn
from torch.nn.functional import linear

from backend.engine.ops import torch_private
from backend.engine.ops.device import onednn_supports
from backend.engine.ops.gemv import can_gemv, gemv_bf16


class Layer(Protocol):
    """y = x Wᵀ + b, (…, inputs) -> (…, outputs)."""

    bytes: int  # of weights beyond the model's own parameters

    def __call__(self, x: torch.Tensor) -> torch.Tensor: ...


MakeLayer: TypeAlias = Callable[[Sequence[nn.Linear]], Layer]  # of modules with the same input, outputs side by side

MAX_GEMV_ROWS = 16  # for more rows a matrix library is at least as fast as the GEMV kernels


class DenseLinear:
    """See Layer. The weight is the model's own."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.weight = weight
        self.bias = bias
        self.bytes = 0
        self._torch_asks_mkl = weight.dtype is torch.float32 and onednn_supports(weight)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self._torch_asks_mkl:
            return torch_private.onednn_linear(x, self.weight, self.bias)
        if x.numel() > x.shape[-1] or self.weight.dtype is not torch.bfloat16:
            return linear(x, self.weight, self.bias)
        # For one row torch's own bf16 GEMV takes half of oneDNN's time. The flag is of the process: two threads that
        # compute at once, as in a load beside requests, lose time by it and nothing else.
        with torch_private.without_onednn():
            return linear(x, self.weight, self.bias)


class StreamedLinear(DenseLinear):
    """See Layer. A few rows in bf16 by the C kernel, which takes as long as reading the weights."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if x.numel() > MAX_GEMV_ROWS * x.shape[-1]:
            return linear(x, self.weight, self.bias)
        y = gemv_bf16(x, self.weight)
        return y if self.bias is None else y + self.bias


class PackedLinear(nn.Module):
    """y = activation(x Wᵀ + b) by oneDNN, with a packed weight. A module, so that it can replace an nn.Linear."""

    activation: torch_private.Activation = "none"

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self._weight = torch_private.onednn_pack_linear(weight)
        self.bias = bias  # stays a parameter where it was one
        self.bytes = weight.nbytes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch_private.onednn_linear(x, self._weight, self.bias, self.activation)


def dense_linear(modules: Sequence[nn.Linear]) -> DenseLinear:
    """Modules with the same input as one layer, whose outputs are theirs side by side."""
    weight, bias = stack_weights(modules)
    at = 0
    for module in modules if len(modules) > 1 else ():
        module.weight = nn.Parameter(weight[at : at + module.out_features], requires_grad=False)
        at += module.out_features
    return StreamedLinear(weight, bias) if can_gemv(weight) else DenseLinear(weight, bias)


def packed_linear(modules: Sequence[nn.Linear]) -> PackedLinear | DenseLinear:
    """As `dense_linear`, packed where oneDNN supports it; then the modules are left without weights."""
    if not onednn_supports(modules[0].weight):
        return dense_linear(modules)
    layer = PackedLinear(*stack_weights(modules))
    drop_weights(modules)
    return layer


def streamed_linear(modules: Sequence[nn.Linear]) -> PackedLinear | DenseLinear:
    """As `dense_linear` where that gives a StreamedLinear, else as `packed_linear`."""
    layer = dense_linear(modules)
    return layer if isinstance(layer, StreamedLinear) else packed_linear(modules)


def stack_weights(modules: Sequence[nn.Linear]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weight (all outputs, inputs) and bias of modules with the same input, as one layer's."""
    if len(modules) == 1:
        return modules[0].weight, modules[0].bias
    with torch.no_grad():
        bias = None if modules[0].bias is None else torch.cat([module.bias for module in modules])
        return _concatenated([module.weight for module in modules]), bias


def _concatenated(weights: Sequence[torch.Tensor]) -> torch.Tensor:
    """(all outputs, inputs): a view where the weights are adjacent in one storage, else a copy."""
    first, outputs = weights[0], sum(len(weight) for weight in weights)
    ends = [weight.data_ptr() + weight.nbytes for weight in weights]
    same = all(weight.untyped_storage().data_ptr() == first.untyped_storage().data_ptr() for weight in weights)
    if same and ends[:-1] == [weight.data_ptr() for weight in weights[1:]]:
        return first.as_strided((outputs, first.shape[1]), first.stride())
    return torch.cat(list(weights))


def pack_linears(model: nn.Module, read_weights: Callable[[Sequence[nn.Linear]], None]) -> None:
    """Replace the nn.Linear modules of a model by packed ones, except those that share an embedding's weight.

    `read_weights` fills the weights of the modules it is given. It is called for one module at a time, after the
    weights of the one before are packed and given up.
    """
    embedded = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
    for parent in list(model.modules()):
        for name, part in parent.named_children():
            if type(part) is nn.Linear and id(part.weight) not in embedded:
                read_weights([part])
                if onednn_supports(part.weight):
                    setattr(parent, name, packed_linear([part]))


def drop_weights(modules: Sequence[nn.Linear]) -> None:
    """Leave the modules without weights, so that their memory can be freed."""
    for module in modules:
        module.weight = nn.Parameter(module.weight.new_empty(0), requires_grad=False)
