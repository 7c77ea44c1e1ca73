"""Attention of many queries at once in bf16 (csrc/prefill_attention.c): a prompt's, and the encoder's windows."""

from __future__ import annotations

import ctypes

import torch

from backend.engine.ops import native
from backend.engine.ops.native_args import PrefillAttentionArgs
from backend.engine.ops.torch_private import avx512_allowed


def can_attend(queries: torch.Tensor) -> bool:
    """Whether `prefill_attention` takes such queries (…, head size) on this processor. It computes no gradients."""
    return (
        native.library is not None
        and queries.device.type == "cpu"
        and queries.dtype is torch.bfloat16
        and not queries.requires_grad
        and queries.shape[-1] % native.limits["prefill_block"] == 0
        and avx512_allowed()
        and bool(native.library.has_prefill_attention())
    )


def prefill_attention(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    cu_seqlens: torch.Tensor,
    kv_offsets: torch.Tensor,
    scale: float,
    dtype: torch.dtype = torch.bfloat16,
    *,
    causal: bool,
) -> torch.Tensor:
    """softmax(scale · Q Kᵀ) V of packed rows in bf16, each row by itself. Only where `can_attend`.

    `queries` (tokens, heads, head size): the rows one after the other, without padding. `cu_seqlens` (rows + 1,) in
    int64: the cumulative ends of the rows, from 0 on. `keys` and `values` (key heads, slots, head size): those of the
    first row; those of row r begin `kv_offsets[r]` numbers behind them, (rows,) in int64.
    Returns (tokens, heads, head size) in `dtype`, bf16 or float32. `causal`: a token attends to itself and those before
    it, else to its whole row.
    Raises ValueError where keys and values differ in strides or dtype, or the rows do not end with the queries.
    """
    if keys.stride() != values.stride() or keys.stride(2) != 1 or not keys.dtype == values.dtype == queries.dtype:
        raise ValueError("keys and values have the queries' dtype, and the same strides, of which the last is 1")
    if int(cu_seqlens[-1]) != len(queries):
        raise ValueError("the last row ends where the queries do")
    queries = queries.contiguous()
    heads, size = queries.shape[1:]
    block, group = native.limits["prefill_block"], native.limits["prefill_group"]
    rows, longest = len(kv_offsets), int(cu_seqlens.diff().max())
    slots = -(-longest // block) * block
    threads = torch.get_num_threads()
    repacked, scores = 2 * rows * len(keys) * slots * size, threads * group * slots
    scratch = queries.new_empty(repacked + 2 * scores)  # scores are float32, twice as large as the queries' numbers
    out = torch.empty_like(queries, dtype=dtype)
    args = PrefillAttentionArgs(
        queries=queries.data_ptr(), keys=keys.data_ptr(), values=values.data_ptr(), out=out.data_ptr(),
        scratch=scratch.data_ptr(), cu_seqlens=cu_seqlens.data_ptr(), kv_offsets=kv_offsets.data_ptr(),
        head_stride=keys.stride(0), slot_stride=keys.stride(1),
        rows=rows, heads=heads, key_heads=len(keys), size=size, threads=threads, slots=slots,
        scale=scale, causal=causal, out_is_bf16=dtype is torch.bfloat16,
    )  # fmt: skip
    native.library.prefill_attention(ctypes.byref(args))
    return out
