"""int8 linear layers, each of the three implementations, against torch's own in float32."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from kernel_marks import needs_kernels
from torch import nn

from backend.engine.loader import CheckpointLoader
from backend.engine.model.cuda_graphs import GraphPlan
from backend.engine.model.graph_capture import captured
from backend.engine.ops import int8, torch_private
from backend.engine.ops.int8 import FbgemmInt8, StreamedInt8, TensorCoreInt8, can_quantize, int8_layers
from backend.engine.ops.linear import Layer, MakeLayer, drop_weights, stack_weights
from backend.errors import LoadRefused


def linears(*outputs: int, inputs: int = 64, bias: bool = False) -> list[nn.Linear]:
    torch.manual_seed(3)
    return [nn.Linear(inputs, out, bias=bias) for out in outputs]


def by_fbgemm(modules: Sequence[nn.Linear]) -> Layer:
    with pytest.MonkeyPatch.context() as patch, int8_layers() as make:
        patch.setattr(int8, "can_gemv", lambda weight: False)
        layer = make(modules)
    assert type(layer) is FbgemmInt8
    return layer


def by_streaming(modules: Sequence[nn.Linear]) -> Layer:
    with int8_layers() as make:
        layer = make(modules)
    assert type(layer) is StreamedInt8
    return layer


def by_tensor_cores(modules: Sequence[nn.Linear]) -> Layer:
    """torch's int8 product of GPUs computes the same on a CPU."""
    weight, bias = stack_weights(modules)
    drop_weights(modules)
    return TensorCoreInt8(*int8._quantize_weight(weight), bias)


streaming = pytest.param(by_streaming, marks=needs_kernels("gemv_int8", "AVX512-VNNI"))
MAKERS = pytest.mark.parametrize("make", [by_fbgemm, by_tensor_cores, streaming])
Make = Callable[[Sequence[nn.Linear]], Layer]


@MAKERS
@pytest.mark.parametrize("rows", [(6,), (1,), (2, 3), (40,)], ids=str)
@pytest.mark.parametrize("bias", [False, True])
def test_the_error_is_within_two_percent_for_rows_of_any_size(make: Make, rows: tuple[int, ...], bias: bool) -> None:
    modules = linears(48, 16, bias=bias)
    count = torch.Size(rows).numel()
    x = (torch.randn(count, 64) * torch.logspace(-3, 4, count)[:, None]).view(*rows, 64)
    exact = torch.cat([module(x) for module in modules], dim=-1).detach()
    found = make(modules)(x)
    assert found.shape == exact.shape
    error = (found - exact).norm(dim=-1) / exact.norm(dim=-1)
    # without VNNI, FBGEMM's inputs have 63 steps instead of 127: their rounding error doubles, the weights' does not
    assert error.max() < (0.03 if make is by_fbgemm and int8.FBGEMM_STEPS < 127 else 0.02)


@MAKERS
def test_a_row_does_not_depend_on_the_other_rows(make: Make) -> None:
    layer = make(linears(32))
    x = torch.randn(5, 64) * torch.tensor([1e-4, 1, 1e4, 30, 0.5])[:, None]
    torch.testing.assert_close(layer(x), torch.cat([layer(row[None]) for row in x]), atol=0, rtol=0)
    assert layer(torch.zeros(1, 64)).abs().max() == 0


@MAKERS
def test_nan_stays_in_its_own_row(make: Make) -> None:
    x = torch.randn(3, 64)
    x[1, 7] = float("nan")
    found = make(linears(32))(x)
    assert found[1].isnan().all()
    assert found[[0, 2]].isfinite().all()


@MAKERS
def test_the_modules_give_up_their_weights(make: Make) -> None:
    modules = linears(32, 32)
    layer = make(modules)
    assert sum(module.weight.numel() for module in modules) == 0
    assert 64 * 64 <= layer.bytes <= 64 * 64 + 64 * 8


def test_sizes_that_cublaslt_does_not_take_are_padded(monkeypatch) -> None:
    multiply = torch_private.int_mm
    sizes: list[tuple[int, int, int]] = []

    def noted(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        sizes.append((*left.shape, right.shape[1]))
        return multiply(left, right)

    monkeypatch.setattr(torch_private, "int_mm", noted)
    for rows, inputs, outputs in [(1, 61, 13), (17, 64, 547), (40, 3, 8)]:
        modules = linears(outputs, inputs=inputs, bias=True)
        x = torch.randn(rows, inputs)
        exact = modules[0](x).detach()
        found = by_tensor_cores(modules)(x)
        assert found.shape == (rows, outputs)
        assert (found - exact).norm() < 0.02 * exact.norm()
    assert all(rows > 16 and inputs % 8 == outputs % 8 == 0 for rows, inputs, outputs in sizes)
    assert len(sizes) == 3


def test_bf16_in_gives_bf16_out() -> None:
    modules = [module.to(torch.bfloat16) for module in linears(48, bias=True)]
    x = torch.randn(2, 64).to(torch.bfloat16)
    exact = modules[0](x).detach()
    found = by_tensor_cores(modules)(x)
    assert found.dtype is torch.bfloat16
    assert (found - exact).norm() < 0.02 * exact.norm()


@pytest.mark.parametrize("failing", [1, 4])
def test_an_error_while_a_layer_is_packed_fails_the_load(monkeypatch, failing: int) -> None:
    def pack(layer: FbgemmInt8) -> None:
        packed.append(layer)
        if len(packed) == failing:
            raise MemoryError

    packed: list[FbgemmInt8] = []
    monkeypatch.setattr(FbgemmInt8, "pack", pack)
    with pytest.raises(MemoryError), int8_layers() as make:
        list(map(make, [linears(4) for _ in range(4)]))


@contextmanager
def tensor_core_layers() -> Iterator[MakeLayer]:
    yield by_tensor_cores


@pytest.mark.parametrize("graphed", [False, True])
def test_with_the_int8_of_gpus_the_texts_are_the_same(
    monkeypatch, demo_options, recognizer, clips, traced, graphed: bool
) -> None:
    monkeypatch.setattr("backend.engine.model.recognizer.int8_layers", tensor_core_layers)
    quantized: Any = CheckpointLoader().load_recognizer(replace(demo_options, quantization="int8"))
    if graphed:
        monkeypatch.setattr(quantized, "_session_decoder", captured(quantized.decoder, GraphPlan(8, (512,)), traced))
    assert [r.text for r in quantized.recognize(clips)] == [r.text for r in recognizer.recognize(clips)]
    assert quantized.weight_bytes < 0.75 * recognizer.weight_bytes


def test_a_device_without_int8_is_named(monkeypatch, demo_options) -> None:
    assert can_quantize(torch.device("cpu"))
    assert not can_quantize(torch.device("mps"))
    monkeypatch.setattr("backend.engine.loader.can_quantize", lambda device: False)
    CheckpointLoader().inspect(demo_options)
    with pytest.raises(LoadRefused, match=r"int8 cannot be had on this device \(cpu\); leave it empty"):
        CheckpointLoader().inspect(replace(demo_options, quantization="int8"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_a_gpu_the_texts_are_the_same(demo_options, recognizer, clips) -> None:
    if not can_quantize(torch.device("cuda")):
        pytest.skip("TensorCoreInt8: this GPU has no int8 products")
    quantized = CheckpointLoader().load_recognizer(replace(demo_options, quantization="int8"))
    assert [r.text for r in quantized.recognize(clips)] == [r.text for r in recognizer.recognize(clips)]
