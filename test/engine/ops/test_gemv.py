"""GEMV and int8 quantisation in C against exact products."""

from __future__ import annotations

import pytest
import torch
from kernel_marks import needs_kernels
from torch import nn

from backend.engine.ops import linear
from backend.engine.ops.device import onednn_supports
from backend.engine.ops.gemv import can_gemv, dequantize_, gemv_bf16, gemv_int8, quantize
from backend.engine.ops.linear import (
    MAX_GEMV_ROWS,
    DenseLinear,
    PackedLinear,
    StreamedLinear,
    dense_linear,
    streamed_linear,
)
from backend.engine.ops.torch_ops import scale_by_absmax

BF16, INT8 = torch.bfloat16, torch.int8
SIZES = [(16, 64), (48, 192), (1024, 3072)]  # outputs, inputs
COUNTS = [1, 2, 3, 4, 5, 8, 9, 11, MAX_GEMV_ROWS]

needs_compiler = needs_kernels("quantize, dequantize")
needs_bf16 = needs_kernels("gemv_bf16", "AVX512-BF16")
needs_vnni = needs_kernels("gemv_int8", "AVX512-VNNI")


def bf16_noise(*shape: int) -> torch.Tensor:
    torch.manual_seed(sum(shape))
    return torch.randn(*shape).to(BF16)


def int8_noise(*shape: int) -> torch.Tensor:
    torch.manual_seed(sum(shape))
    return torch.randint(-127, 128, shape, dtype=INT8)


def by_gemv(rows: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    return gemv_int8(rows, weight, scales, 128 * weight.sum(dim=1, dtype=torch.int32))


@needs_bf16
@pytest.mark.parametrize(("outputs", "inputs"), SIZES)
@pytest.mark.parametrize("count", COUNTS)
def test_bf16_products_are_exact_but_for_one_rounding(count: int, outputs: int, inputs: int) -> None:
    rows, weight = bf16_noise(count, inputs), bf16_noise(outputs, inputs)
    exact = rows.double() @ weight.double().T
    found = gemv_bf16(rows, weight)
    assert found.shape == (count, outputs)
    torch.testing.assert_close(found.double(), exact, atol=1e-3 * inputs**0.5, rtol=2**-8)  # rounded once


@needs_vnni
@pytest.mark.parametrize(("outputs", "inputs"), SIZES)
@pytest.mark.parametrize("count", COUNTS)
def test_int8_products_are_exact_by_gemv_and_by_dequantised_accumulators(count: int, outputs: int, inputs: int) -> None:
    rows, weight = int8_noise(count, inputs), int8_noise(outputs, inputs)
    rows[:, 3] = -127  # so that each row's absmax is known
    rows[0], weight[0] = 127, -127  # the largest accumulators possible
    absmax, scales = torch.rand(count, 1), torch.rand(outputs)
    sums = rows.int() @ weight.int().T
    exact = sums.float() * (absmax / 127) * scales
    numbers = rows * (absmax / 127)
    numbers[:, 3] = -absmax[:, 0]
    numbers[0] = absmax[0]
    torch.testing.assert_close(by_gemv(numbers, weight, scales), exact, atol=0, rtol=0)
    torch.testing.assert_close(dequantize_(sums.clone(), absmax, scales), exact, atol=0, rtol=0)


@needs_bf16
def test_a_bf16_row_does_not_depend_on_the_other_rows() -> None:
    rows, weight = bf16_noise(MAX_GEMV_ROWS, 192), bf16_noise(48, 192)
    alone = torch.cat([gemv_bf16(row[None], weight) for row in rows])
    for count in COUNTS:
        torch.testing.assert_close(gemv_bf16(rows[:count], weight), alone[:count], atol=0, rtol=0)


@needs_bf16
def test_nan_stays_in_its_own_row_and_its_own_output() -> None:
    rows, weight = bf16_noise(3, 64), bf16_noise(32, 64)
    rows[1, 7] = weight[5, 9] = float("nan")
    found = gemv_bf16(rows, weight).isnan()
    assert found[1].all()
    assert found[:, 5].all()
    assert found.sum() == 32 + 2


@needs_compiler
@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("size", [1, 24, 1024])
def test_rows_are_quantised_to_the_nearest_int8(size: int) -> None:
    torch.manual_seed(2)
    rows = torch.randn(5, size) * torch.logspace(-4, 4, 5)[:, None]
    rows[3] = 0
    wanted, wanted_absmax = scale_by_absmax(rows)
    found, absmax = quantize(rows)
    torch.testing.assert_close(absmax, wanted_absmax, atol=0, rtol=0)
    assert (found - 127 * wanted.double()).abs().max() <= 0.5 + 1e-5
    assert found.abs().amax(dim=1).tolist() == [127, 127, 127, 0, 127]


@needs_compiler
@pytest.mark.usefixtures("instruction_set")
def test_the_absmax_of_a_row_with_nan_is_nan() -> None:
    rows = torch.randn(2, 64)
    rows[1, 3] = float("nan")
    _, absmax = quantize(rows)
    assert absmax.isnan().tolist() == [[False], [True]]


@needs_compiler
@pytest.mark.parametrize("dtype", [BF16, INT8])
def test_weights_of_other_shapes_and_dtypes_are_left_to_libraries(dtype: torch.dtype) -> None:
    lines = 64 // dtype.itemsize
    assert not can_gemv(torch.zeros(17, lines, dtype=dtype))
    assert not can_gemv(torch.zeros(16, lines + 8, dtype=dtype))
    assert not can_gemv(torch.zeros(lines, 16, dtype=dtype).t())
    assert not can_gemv(torch.zeros(16, lines, dtype=dtype, device="meta"))
    assert not can_gemv(torch.zeros(16, 64))


@needs_bf16
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [(1,), (2, 3), (MAX_GEMV_ROWS + 1,)], ids=str)
def test_stacked_layers_are_streamed_from_one_copy(rows: tuple[int, ...], bias: bool) -> None:
    modules = [nn.Linear(64, out, bias=bias).to(BF16) for out in (32, 16, 16)]
    x = bf16_noise(*rows, 64)
    with torch.inference_mode():
        apart = torch.cat([module(x) for module in modules], dim=-1)
        layer = streamed_linear(modules)
        assert isinstance(layer, StreamedLinear)
        torch.testing.assert_close(layer(x), apart, atol=1e-2, rtol=1e-2)
    assert {module.weight.untyped_storage().data_ptr() for module in modules} == {layer.weight.data_ptr()}


@pytest.mark.skipif(not onednn_supports(torch.empty(0)), reason="packed_linear: this torch has no oneDNN")
def test_without_gemv_layers_are_packed(monkeypatch) -> None:
    monkeypatch.setattr(linear, "can_gemv", lambda weight: False)
    modules = [nn.Linear(64, 32), nn.Linear(64, 16)]
    x = torch.randn(3, 64)
    apart = torch.cat([module(x) for module in modules], dim=-1)
    layer = streamed_linear(modules)
    torch.testing.assert_close(layer(x), apart)
    assert type(layer) is PackedLinear
    assert sum(module.weight.numel() for module in modules) == 0
    assert type(dense_linear([nn.Linear(64, 32)])) is DenseLinear
