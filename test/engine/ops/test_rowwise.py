"""The C kernels of single rows (csrc/rowwise.c) against torch's operations."""

from __future__ import annotations

import pytest
import torch
from kernel_marks import needs_kernels

from backend.engine.ops import native
from backend.engine.ops.gemv import rescale_, scale_by_absmax
from backend.engine.ops.native_ops import NATIVE
from backend.engine.ops.torch_ops import TORCH

F32, BF16 = torch.float32, torch.bfloat16

needs_compiler = needs_kernels("rms_norm, silu_mul, scale_by_absmax, rescale")

# rows and size: enough for threads, too few for a vector register, and a remainder
ROWS = [(1, 1024), (8, 1024), (3, 13), (1, 5), (64, 100)]


@needs_compiler
@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("dtype", [F32, BF16])
@pytest.mark.parametrize("shape", ROWS, ids=str)
def test_rms_norm_and_silu_mul_equal_torchs(shape: tuple[int, int], dtype: torch.dtype) -> None:
    torch.manual_seed(9)
    x, weight = 3 * torch.randn(shape).to(dtype), torch.rand(shape[1]).to(dtype)
    error = 2e-6 if dtype is F32 else 2**-7
    torch.testing.assert_close(NATIVE.rms_norm(x, weight, 1e-2), TORCH.rms_norm(x, weight, 1e-2), atol=1e-6, rtol=error)
    both = 20 * torch.randn(shape[0], 1, 2 * shape[1]).to(dtype)
    exact = TORCH.silu_mul(both.double())
    torch.testing.assert_close(NATIVE.silu_mul(both).double(), exact, atol=1e-6, rtol=error)


@needs_compiler
@pytest.mark.usefixtures("instruction_set")
def test_rows_of_zeros_stay_zeros_and_nan_stays_in_its_row() -> None:
    x = torch.randn(3, 24)
    x[0], x[1, 5] = 0, float("nan")
    normed = NATIVE.rms_norm(x, torch.ones(24), 1e-6)
    assert not normed[0].any()
    assert normed[1].isnan().all()
    assert normed[2].isfinite().all()
    gated = NATIVE.silu_mul(torch.tensor([[float("nan"), 1.0, -200.0, 200.0, 1.0, float("nan"), 3.0, 3.0]]))
    assert gated[0, :2].isnan().all()
    torch.testing.assert_close(gated[0, 2:], torch.tensor([0.0, 600.0]))


@needs_compiler
@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("shape", ROWS, ids=str)
def test_rows_are_scaled_by_their_absmax_and_back_as_in_torch(monkeypatch, shape: tuple[int, int]) -> None:
    torch.manual_seed(10)
    x = torch.randn(shape) * torch.logspace(-20, 20, shape[0])[:, None]
    x[0, -1] = -x[0].abs().max() * 2
    x[1:][-1:] = 0
    rows, absmax = scale_by_absmax(x)
    back = rows.clone()
    rescale_(back, absmax)
    monkeypatch.setattr(native, "library", None)
    wanted, wanted_absmax = scale_by_absmax(x)
    wanted_back = wanted.clone()
    rescale_(wanted_back, wanted_absmax)
    assert torch.equal(rows, wanted)
    assert torch.equal(absmax, wanted_absmax)
    assert torch.equal(back, wanted_back)


@needs_compiler
@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("odd", ["nan", "-nan", "inf"])
@pytest.mark.parametrize("place", [0, 20, 36])
def test_nan_or_infinity_shows_in_the_absmax_of_its_own_row(odd: str, place: int) -> None:
    x = torch.randn(2, 37)
    x[0, place] = float(odd)
    _, absmax = scale_by_absmax(x)
    assert not absmax[0].isfinite()
    assert absmax[1] == x[1].abs().max()
