"""A few rows times weights, in C, held against exact products."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from backend.engine.ops import linear, native
from backend.engine.ops.gemv import can_gemv, dequantized, gemv_bf16, gemv_int8, quantized
from backend.engine.ops.linear import MAX_GEMV_ROWS, Dense, Packed, Streamed, dense, onednn_takes, streamed
from backend.engine.ops.torch_ops import scaled

BF16, INT8 = torch.bfloat16, torch.int8
SIZES = [(16, 64), (48, 192), (1024, 3072)]  # outputs, inputs
COUNTS = [1, 2, 3, 4, 5, 8, 9, 11, MAX_GEMV_ROWS]

needs_compiler = pytest.mark.skipif(native.library is None, reason="install.sh found no gcc")
needs_bf16 = pytest.mark.skipif(not can_gemv(torch.zeros(16, 64, dtype=BF16)), reason="no AVX512-BF16 here")
needs_vnni = pytest.mark.skipif(not can_gemv(torch.zeros(16, 64, dtype=INT8)), reason="no AVX512-VNNI here")


def halves(*shape: int) -> torch.Tensor:
    torch.manual_seed(sum(shape))
    return torch.randn(*shape).to(BF16)


def bytes_(*shape: int) -> torch.Tensor:
    torch.manual_seed(sum(shape))
    return torch.randint(-127, 128, shape, dtype=INT8)


def of_bytes(rows: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    return gemv_int8(rows, weight, scales, 128 * weight.sum(dim=1, dtype=torch.int32))


@needs_bf16
@pytest.mark.parametrize(("outputs", "inputs"), SIZES)
@pytest.mark.parametrize("count", COUNTS)
def test_halves_are_multiplied_as_exactly_as_they_can_be_written(count: int, outputs: int, inputs: int) -> None:
    rows, weight = halves(count, inputs), halves(outputs, inputs)
    exact = rows.double() @ weight.double().T
    found = gemv_bf16(rows, weight)
    assert found.shape == (count, outputs)
    torch.testing.assert_close(found.double(), exact, atol=1e-3 * inputs**0.5, rtol=2**-8)  # rounded once


@needs_vnni
@pytest.mark.parametrize(("outputs", "inputs"), SIZES)
@pytest.mark.parametrize("count", COUNTS)
def test_bytes_are_multiplied_exactly_by_both_ways(count: int, outputs: int, inputs: int) -> None:
    rows, weight = bytes_(count, inputs), bytes_(outputs, inputs)
    rows[:, 3] = -127  # so that the scale is known
    rows[0], weight[0] = 127, -127  # the largest sums that there are
    largest, scales = torch.rand(count, 1), torch.rand(outputs)
    sums = rows.int() @ weight.int().T
    exact = sums.float() * (largest / 127) * scales
    numbers = rows * (largest / 127)
    numbers[:, 3] = -largest[:, 0]
    numbers[0] = largest[0]
    torch.testing.assert_close(of_bytes(numbers, weight, scales), exact, atol=0, rtol=0)
    torch.testing.assert_close(dequantized(sums.clone(), largest, scales), exact, atol=0, rtol=0)


@needs_bf16
def test_a_row_of_halves_does_not_depend_on_its_neighbours() -> None:
    rows, weight = halves(MAX_GEMV_ROWS, 192), halves(48, 192)
    alone = torch.cat([gemv_bf16(row[None], weight) for row in rows])
    for count in COUNTS:
        torch.testing.assert_close(gemv_bf16(rows[:count], weight), alone[:count], atol=0, rtol=0)


@needs_bf16
def test_what_is_no_number_spoils_its_own_row_and_its_own_output() -> None:
    rows, weight = halves(3, 64), halves(32, 64)
    rows[1, 7] = weight[5, 9] = float("nan")
    found = gemv_bf16(rows, weight).isnan()
    assert found[1].all()
    assert found[:, 5].all()
    assert found.sum() == 32 + 2


@needs_compiler
@pytest.mark.usefixtures("version")
@pytest.mark.parametrize("size", [1, 24, 1024])
def test_rows_are_rounded_to_the_nearest_bytes(size: int) -> None:
    torch.manual_seed(2)
    rows = torch.randn(5, size) * torch.logspace(-4, 4, 5)[:, None]
    rows[3] = 0
    wanted, most = scaled(rows)
    found, largest = quantized(rows)
    torch.testing.assert_close(largest, most, atol=0, rtol=0)
    assert (found - 127 * wanted.double()).abs().max() <= 0.5 + 1e-5
    assert found.abs().amax(dim=1).tolist() == [127, 127, 127, 0, 127]


@needs_compiler
@pytest.mark.usefixtures("version")
def test_a_row_without_numbers_says_so() -> None:
    rows = torch.randn(2, 64)
    rows[1, 3] = float("nan")
    _, largest = quantized(rows)
    assert largest.isnan().tolist() == [[False], [True]]


@needs_compiler
@pytest.mark.parametrize("dtype", [BF16, INT8])
def test_weights_of_other_sizes_and_kinds_are_left_to_libraries(dtype: torch.dtype) -> None:
    lines = 64 // dtype.itemsize
    assert not can_gemv(torch.zeros(17, lines, dtype=dtype))
    assert not can_gemv(torch.zeros(16, lines + 8, dtype=dtype))
    assert not can_gemv(torch.zeros(lines, 16, dtype=dtype).t())
    assert not can_gemv(torch.zeros(16, lines, dtype=dtype, device="meta"))
    assert not can_gemv(torch.zeros(16, 64))


@needs_bf16
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [(1,), (2, 3), (MAX_GEMV_ROWS + 1,)], ids=str)
def test_a_decoders_layers_are_swept_from_one_copy(rows: tuple[int, ...], bias: bool) -> None:
    modules = [nn.Linear(64, out, bias=bias).to(BF16) for out in (32, 16, 16)]
    x = halves(*rows, 64)
    with torch.inference_mode():
        apart = torch.cat([module(x) for module in modules], dim=-1)
        layer = streamed(modules)
        assert isinstance(layer, Streamed)
        torch.testing.assert_close(layer(x), apart, atol=1e-2, rtol=1e-2)
    assert {module.weight.untyped_storage().data_ptr() for module in modules} == {layer.weight.data_ptr()}


@pytest.mark.skipif(not onednn_takes(torch.empty(0)), reason="torch has no oneDNN here")
def test_where_nothing_sweeps_they_are_packed(monkeypatch) -> None:
    monkeypatch.setattr(linear, "can_gemv", lambda weight: False)
    modules = [nn.Linear(64, 32), nn.Linear(64, 16)]
    x = torch.randn(3, 64)
    apart = torch.cat([module(x) for module in modules], dim=-1)
    layer = streamed(modules)
    torch.testing.assert_close(layer(x), apart)
    assert type(layer) is Packed
    assert sum(module.weight.numel() for module in modules) == 0
    assert type(dense([nn.Linear(64, 32)])) is Dense
