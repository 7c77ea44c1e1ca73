"""What kernels in C do of each row by itself, held against torch's operations."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from backend.engine import compiled as c
from backend.engine.compiled import COMPILED, attended, can_attend, rescale_, scaled
from backend.engine.kernels import TORCH

F32, BF16 = torch.float32, torch.bfloat16

needs_compiler = pytest.mark.skipif(c.library is None, reason="install.sh found no gcc")


def windows(lengths: list[int], heads: int, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, keys and values, (windows, heads, longest, size), nothing behind a window's end."""
    torch.manual_seed(8)
    parts = torch.randn(3, len(lengths), heads, max(lengths), size).to(BF16)
    for window, length in enumerate(lengths):
        parts[:, window, :, length:] = 0
    queries, keys, values = parts
    return 2 * queries, keys, values


@needs_compiler
@pytest.mark.usefixtures("version")
@pytest.mark.parametrize("lengths", [[1], [40, 40], [104, 33, 1]], ids=str)
def test_windows_see_what_is_theirs_and_as_exactly_as_in_torch(lengths: list[int]) -> None:
    queries, keys, values = windows(lengths, 4, 32)
    found = attended(queries, keys, values, torch.tensor(lengths), 0.3, causal=False)
    for window, length in enumerate(lengths):
        parts = [part[window : window + 1, :, :length] for part in (queries, keys, values)]
        exact = scaled_dot_product_attention(*(part.double() for part in parts), scale=0.3)
        wanted = scaled_dot_product_attention(*parts, scale=0.3)
        error = (found[window : window + 1, :, :length] - exact).abs().mean()
        assert error <= 1.5 * (wanted - exact).abs().mean()


@needs_compiler
@pytest.mark.parametrize("count", [2, 64], ids=["by torch", "by oneDNN, where that takes bf16"])
def test_scores_that_differ_by_less_than_sixteen_bits_tell_are_told_apart(count: int) -> None:
    """A score of 100 is rounded to a multiple of a half; e to the half is 1.6."""
    queries, keys = (torch.zeros(1, 1, count, 64, dtype=BF16) for _ in range(2))
    queries[..., :2] = torch.tensor([10, 1])
    keys[..., 0], keys[..., 1] = 10, torch.arange(count) / count
    values = torch.eye(count, 64).to(BF16).view(1, 1, count, 64)
    found = attended(queries, keys, values, torch.tensor([count]), 1.0, causal=False)[0, 0, :, :count].float()
    wanted = keys[0, 0, :, 1].float().softmax(dim=0)
    torch.testing.assert_close(found, wanted.expand(count, count), atol=0, rtol=2**-7)


@needs_compiler
def test_what_is_no_number_is_not_hidden_from_prompts() -> None:
    queries, keys, values = windows([40], 2, 32)
    keys[0, 0, 7, 3] = float("nan")
    assert attended(queries, keys, values, torch.tensor([40]), 0.3, causal=False)[0, 0].isnan().all()


@needs_compiler
@pytest.mark.parametrize(
    "queries",
    [
        torch.empty(1, 2, 3, 8),
        torch.empty(1, 2, 3, 8, dtype=BF16, device="meta"),
        torch.empty(8, 16, 600, 0, dtype=BF16),
    ],
    ids=["float32", "no cpu", "too many scores"],
)
def test_other_prompts_attend_by_torch(queries: torch.Tensor) -> None:
    assert not can_attend(queries, queries.shape[2])


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
    torch.testing.assert_close(COMPILED.normed(x, weight, 1e-2), TORCH.normed(x, weight, 1e-2), atol=1e-6, rtol=error)
    both = 20 * torch.randn(shape[0], 1, 2 * shape[1]).to(dtype)
    exact = TORCH.gated(both.double())
    torch.testing.assert_close(COMPILED.gated(both).double(), exact, atol=1e-6, rtol=error)


@needs_compiler
@pytest.mark.usefixtures("version")
def test_a_row_that_is_silent_or_no_number_stays_so() -> None:
    x = torch.randn(3, 24)
    x[0], x[1, 5] = 0, float("nan")
    normed = COMPILED.normed(x, torch.ones(24), 1e-6)
    assert not normed[0].any()
    assert normed[1].isnan().all()
    assert normed[2].isfinite().all()
    gated = COMPILED.gated(torch.tensor([[float("nan"), 1.0, -200.0, 200.0, 1.0, float("nan"), 3.0, 3.0]]))
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
    monkeypatch.setattr(c, "library", None)
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
