"""Attention of many queries in C (csrc/prefill_attention.c) against exact attention."""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import NamedTuple

import pytest
import torch
from kernel_marks import needs_kernels
from torch.nn.functional import scaled_dot_product_attention

from backend.engine.ops.prefill_attention import can_attend, prefill_attention

F32, BF16 = torch.float32, torch.bfloat16
# tokens of each row: fewer than are computed at a time, as many, one more; alone and beside other rows
LENGTHS = [[1], [8], [32], [33], [200], [104, 39], [7, 1, 65, 130]]
# heads, key heads, size: the 0.6B's decoder and encoder; three query heads that share a key head
HEADS = [(16, 8, 128), (14, 14, 64), (6, 2, 32)]

needs_bf16 = needs_kernels("prefill_attention", "AVX512-BF16")


class Rows(NamedTuple):
    """PackedLinear rows of tokens, (tokens, heads, size) each."""

    queries: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor
    cu_seqlens: torch.Tensor

    @classmethod
    def of(cls, lengths: list[int], heads: int = 2, key_heads: int = 1, size: int = 32) -> Rows:
        torch.manual_seed(sum(lengths))
        queries = 2 * torch.randn(sum(lengths), heads, size)
        keys, values = torch.randn(2, sum(lengths), key_heads, size)
        return cls(queries.to(BF16), keys.to(BF16), values.to(BF16), torch.tensor([0, *accumulate(lengths)]))

    def by_kernel(self, *, causal: bool, dtype: torch.dtype = F32) -> torch.Tensor:
        kv_offsets = self.cu_seqlens[:-1] * self.keys.stride(0)
        keys, values = self.keys.transpose(0, 1), self.values.transpose(0, 1)
        return prefill_attention(self.queries, keys, values, self.cu_seqlens, kv_offsets, 0.2, dtype, causal=causal)

    def by_torch(self, dtype: torch.dtype, *, causal: bool) -> torch.Tensor:
        alone = []
        for begin, end in pairwise(self.cu_seqlens.tolist()):
            q, k, v = (part[begin:end].to(dtype).transpose(0, 1)[None] for part in self[:3])
            attended = scaled_dot_product_attention(q, k, v, scale=0.2, is_causal=causal, enable_gqa=True)
            alone.append(attended[0].transpose(0, 1))
        return torch.cat(alone)


@needs_bf16
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize(("heads", "key_heads", "size"), HEADS)
def test_it_is_as_exact_as_torch(heads: int, key_heads: int, size: int, lengths: list[int], causal: bool) -> None:
    rows = Rows.of(lengths, heads, key_heads, size)
    exact = rows.by_torch(torch.float64, causal=causal)
    wanted = rows.by_torch(BF16, causal=causal)
    for dtype in (F32, BF16):
        found = rows.by_kernel(causal=causal, dtype=dtype)
        assert found.dtype is dtype
        assert (found - exact).abs().mean() <= 1.1 * (wanted - exact).abs().mean()
        assert (found - exact).abs().max() <= 1.5 * (wanted - exact).abs().max()


@needs_bf16
@pytest.mark.parametrize("causal", [False, True])
def test_a_row_does_not_depend_on_the_other_rows(causal: bool) -> None:
    rows = Rows.of([50, 9, 140], 4, 2, 64)
    together = rows.by_kernel(causal=causal)
    for begin, end in pairwise(rows.cu_seqlens.tolist()):
        q, k, v = (part[begin:end] for part in rows[:3])
        alone = Rows(q, k, v, torch.tensor([0, end - begin]))
        assert torch.equal(alone.by_kernel(causal=causal), together[begin:end])


@needs_bf16
def test_causal_attention_does_not_see_later_tokens() -> None:
    rows = Rows.of([70], 2, 1, 32)
    before = rows.by_kernel(causal=True)
    rows.keys[41:] *= -3
    rows.values[41:] += 1
    after = rows.by_kernel(causal=True)
    assert torch.equal(before[:41], after[:41])
    assert (before[41:] != after[41:]).any(dim=-1).all()


@needs_bf16
def test_scores_keep_more_precision_than_bf16() -> None:
    """In bf16 a score of 100 is rounded to a multiple of 0.5, and exp(0.5) is 1.6."""
    queries, keys = (torch.zeros(64, 1, 64, dtype=BF16) for _ in range(2))
    queries[..., :2] = torch.tensor([50, 5])
    keys[..., 0], keys[:, 0, 1] = 10, torch.arange(64) / 64
    values = torch.eye(64).to(BF16)[:, None]
    found = Rows(queries, keys, values, torch.tensor([0, 64])).by_kernel(causal=False)
    torch.testing.assert_close(found[:, 0], keys[:, 0, 1].float().softmax(dim=0).expand(64, 64), atol=0, rtol=2**-8)


@needs_bf16
def test_softmax_of_scores_of_any_size_is_finite() -> None:
    rows = Rows.of([40])
    rows.keys.mul_(1000)
    found = rows.by_kernel(causal=True)
    assert found.isfinite().all()
    torch.testing.assert_close(found, rows.by_torch(F32, causal=True), atol=1e-2, rtol=1e-2)


@needs_bf16
@pytest.mark.parametrize("place", ["queries", "keys", "values"])
def test_nan_shows_and_stays_in_its_own_row(place: str) -> None:
    rows = Rows.of([40, 30])
    getattr(rows, place)[7, 0, 3] = float("nan")
    found = rows.by_kernel(causal=False)
    affected = {"queries": found[7, 0], "keys": found[:40], "values": found[:40, :, 3]}[place]
    assert affected.isnan().all()
    assert found.isnan().sum() == affected.numel()


@needs_bf16
def test_keys_and_values_with_different_strides_are_refused() -> None:
    rows = Rows.of([40])
    with pytest.raises(ValueError, match="the same strides"):
        rows._replace(values=rows.values.repeat(1, 2, 1)[:, :1]).by_kernel(causal=False)


@needs_bf16
@pytest.mark.parametrize("last", [39, 41])
def test_rows_that_end_elsewhere_than_the_queries_are_refused(last: int) -> None:
    with pytest.raises(ValueError, match="ends where the queries do"):
        Rows.of([40])._replace(cu_seqlens=torch.tensor([0, last])).by_kernel(causal=False)


@needs_bf16
def test_keys_of_another_dtype_are_refused() -> None:
    rows = Rows.of([40])
    with pytest.raises(ValueError, match="the queries' dtype"):
        rows._replace(keys=rows.keys.float(), values=rows.values.float()).by_kernel(causal=False)


@pytest.mark.parametrize(
    "queries",
    [torch.empty(3, 32), torch.empty(3, 24, dtype=BF16), torch.empty(3, 32, dtype=BF16, device="meta")],
    ids=["float32", "size 24", "no cpu"],
)
def test_other_queries_are_left_to_torch(queries: torch.Tensor) -> None:
    assert not can_attend(queries)
