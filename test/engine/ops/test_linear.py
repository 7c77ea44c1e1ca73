"""Linear layers, dense and packed, against torch's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from backend.engine.ops import linear
from backend.engine.ops.device import onednn_supports
from backend.engine.ops.linear import PackedLinear, dense_linear, pack_linears, packed_linear


def layers(*outputs: int, inputs: int = 64, bias: bool = False) -> list[nn.Linear]:
    torch.manual_seed(3)
    return [nn.Linear(inputs, out, bias=bias) for out in outputs]


@pytest.mark.parametrize("bias", [False, True])
def test_stacked_layers_give_their_outputs_side_by_side_from_one_copy(bias: bool) -> None:
    modules = layers(8, 4, 4, bias=bias)
    x = torch.randn(2, 3, 64)
    apart = torch.cat([module(x) for module in modules], dim=-1)
    stack = dense_linear(modules)
    torch.testing.assert_close(stack(x), apart)
    assert {m.weight.untyped_storage().data_ptr() for m in modules} == {stack.weight.untyped_storage().data_ptr()}
    torch.testing.assert_close(torch.cat([module(x) for module in modules], dim=-1), apart)


needs_onednn = pytest.mark.skipif(not onednn_supports(torch.empty(0)), reason="packed_linear: this torch has no oneDNN")


@needs_onednn
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [(1,), (8,), (2, 3), (1, 1)])
def test_packed_layers_equal_the_modules_and_are_the_only_copy(dtype, rows, bias: bool) -> None:
    modules = [module.to(dtype) for module in layers(8, 4, 4, bias=bias)]
    if not onednn_supports(modules[0].weight):
        pytest.skip("packed_linear in bf16: oneDNN has no bf16 on this processor")
    x = torch.randn(*rows, 64, dtype=dtype)
    with torch.inference_mode():
        apart = torch.cat([module(x) for module in modules], dim=-1)
        stack = packed_linear(modules)
        torch.testing.assert_close(stack(x), apart, atol=1e-2 if dtype is torch.bfloat16 else 1e-6, rtol=1e-5)
    assert sum(module.weight.numel() for module in modules) == 0
    assert stack.bytes == 16 * 64 * dtype.itemsize


@needs_onednn
def test_packed_layers_replace_a_models_linear_ones() -> None:
    model: Any = nn.Sequential(
        nn.Linear(8, 16), nn.Sequential(nn.GELU(), nn.Linear(16, 8, bias=False)), nn.Embedding(16, 8)
    )
    head = nn.Linear(8, 16, bias=False)
    head.weight = model[2].weight
    model.append(head)
    x = torch.randn(3, 8)
    first, second = model[0], model[1][1]
    filled: list[nn.Module] = []
    with torch.inference_mode():
        before = model[1](model[0](x))
        pack_linears(model, filled.extend)
        torch.testing.assert_close(model[1](model[0](x)), before)
    assert [type(part) for part in (model[0], model[1][1], model[3])] == [PackedLinear, PackedLinear, nn.Linear]
    assert model[3].weight is model[2].weight
    assert filled == [first, second]


@needs_onednn
def test_float32_is_not_left_to_mkl(monkeypatch) -> None:
    (module,) = modules = layers(8)
    x = torch.randn(2, 3, 64)
    exact = module(x)
    monkeypatch.setattr(linear, "linear", None)  # what would ask MKL
    torch.testing.assert_close(dense_linear(modules)(x), exact)
