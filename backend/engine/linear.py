"""Linear layers as the decoder uses them: stacked where they share their input, one copy of their weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import linear


class Linear:
    """y = x Wᵀ + b, with the module's own tensors."""

    def __init__(self, module: nn.Linear) -> None:
        self.weight: torch.Tensor = module.weight
        self.bias: torch.Tensor | None = module.bias

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return linear(x, self.weight, self.bias)


def stacked(modules: Sequence[nn.Linear]) -> Linear:
    """Layers with one input as one layer, whose output is theirs side by side. They keep views of it."""
    whole = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        whole.weight = nn.Parameter(torch.cat([module.weight for module in modules]), requires_grad=False)
        at = 0
        for module in modules:
            module.weight.data = whole.weight[at : at + module.out_features]
            at += module.out_features
        if modules[0].bias is not None:
            whole.bias = nn.Parameter(torch.cat([module.bias for module in modules]), requires_grad=False)
    return Linear(whole)
