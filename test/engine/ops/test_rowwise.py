"""What kernels in C do of each row by itself, held against torch's operations."""

from __future__ import annotations

import pytest
import torch

from backend.engine.ops import native
from backend.engine.ops.gemv import rescale_, scaled
from backend.engine.ops.native_ops import NATIVE
from backend.engine.ops.torch_ops import TORCH

F32, BF16 = torch.float32, torch.bfloat16

needs_compiler = pytest.mark.skipif(native.library is None, reason="install.sh found no gcc")


# rows and size; many enough for threads, too few for a vector, and what is left over
ROWS = [(1, 1024), (8, 1024), (3, 13), (1, 5), (64, 100)]


@needs_compiler
@pytest.mark.usefixtures("version")
@pytest.mark.parametrize("dtype", [F32, BF16])
@pytest.mark.parametrize("shape", ROWS, ids=str)
def test_rows_are_normed_and_gated_as_in_torch(shape: tuple[int, int], dtype: torch.dtype) -> None:
    torch.manual_seed(9)
    x, weight = 3 * torch.randn(shape).to(dtype), torch.rand(shape[1]).to(dtype)
    error = 2e-6 if dtype is F32 else 2**-7
    torch.testing.assert_close(NATIVE.rms_norm(x, weight, 1e-2), TORCH.rms_norm(x, weight, 1e-2), atol=1e-6, rtol=error)
    both = 20 * torch.randn(shape[0], 1, 2 * shape[1]).to(dtype)
    exact = TORCH.silu_mul(both.double())
    torch.testing.assert_close(NATIVE.silu_mul(both).double(), exact, atol=1e-6, rtol=error)


@needs_compiler
@pytest.mark.usefixtures("version")
def test_a_row_that_is_silent_or_no_number_stays_so() -> None:
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
@pytest.mark.usefixtures("version")
@pytest.mark.parametrize("shape", ROWS, ids=str)
def test_rows_are_scaled_and_scaled_back_as_in_torch(monkeypatch, shape: tuple[int, int]) -> None:
    torch.manual_seed(10)
    x = torch.randn(shape) * torch.logspace(-20, 20, shape[0])[:, None]
    x[0, -1] = -x[0].abs().max() * 2
    x[1:][-1:] = 0
    rows, largest = scaled(x)
    back = rows.clone()
    rescale_(back, largest)
    monkeypatch.setattr(native, "library", None)
    wanted, wanted_largest = scaled(x)
    wanted_back = wanted.clone()
    rescale_(wanted_back, wanted_largest)
    assert torch.equal(rows, wanted)
    assert torch.equal(largest, wanted_largest)
    assert torch.equal(back, wanted_back)


@needs_compiler
@pytest.mark.usefixtures("version")
@pytest.mark.parametrize("odd", ["nan", "-nan", "inf"])
@pytest.mark.parametrize("place", [0, 20, 36])
def test_a_row_with_what_is_no_number_has_no_scale(odd: str, place: int) -> None:
    x = torch.randn(2, 37)
    x[0, place] = float(odd)
    _, largest = scaled(x)
    assert not largest[0].isfinite()
    assert largest[1] == x[1].abs().max()
