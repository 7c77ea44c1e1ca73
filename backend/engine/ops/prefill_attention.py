"""Attention of many queries at once in C (csrc/prefill_attention.c): a prompt's, and those of the encoder's windows."""

from __future__ import annotations

import ctypes

import torch

from backend.engine.ops import native
from backend.engine.ops.native import COUNT, FLAG, FLOAT, POINTER

_BLOCK, _GROUP = 32, 8  # as in prefill_attention.c


class _Prompted(ctypes.Structure):
    """`Prompts` of prefill_attention.c, where each field is explained."""

    _fields_ = (
        *((name, POINTER) for name in ("queries", "keys", "values", "out", "scratch", "ends", "held")),
        *((n, COUNT) for n in ("head_apart", "slot_apart", "rows", "heads", "key_heads", "size", "threads", "slots")),
        ("scale", FLOAT),
        ("causal", FLAG),
        ("out_is_16", FLAG),
    )


def can_attend(queries: torch.Tensor) -> bool:
    """Whether `attended` takes such queries (…, size)."""
    return (
        native.library is not None
        and queries.device.type == "cpu"
        and queries.dtype is torch.bfloat16
        and queries.shape[-1] % _BLOCK == 0
        and bool(native.library.multiplies_halves())
    )


def attended(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    ends: torch.Tensor,
    held: torch.Tensor,
    scale: float,
    dtype: torch.dtype = torch.bfloat16,
    *,
    causal: bool,
) -> torch.Tensor:
    """Attention of many queries in bf16, (tokens, heads, size): of rows, one behind the other, each to its own.

    `ends`: where rows end, from 0 on, (rows + 1,). `keys` and `values`: of the first row, (key heads, slots, size),
    its tokens in order; `held`: how many numbers behind them those of each row stand, (rows,); it and `ends` in int64.
    Gives the answers in `dtype`, bf16 or float32, like the queries. `causal`: a token sees itself and those before it,
    else all of its row.
    Raises ValueError where keys and values do not lie alike, or rows do not end with the queries.
    """
    if keys.stride() != values.stride() or keys.stride(2) != 1 or not keys.dtype == values.dtype == queries.dtype:
        raise ValueError("keys and values are of the queries' kind and lie alike, each number behind the one before")
    if int(ends[-1]) != len(queries):
        raise ValueError("the last row ends where the queries do")
    queries = queries.contiguous()
    heads, size = queries.shape[1:]
    rows, longest = len(held), int(ends.diff().max())
    slots = -(-longest // _BLOCK) * _BLOCK
    threads = torch.get_num_threads()
    laid_out, scores = 2 * rows * len(keys) * slots * size, threads * _GROUP * slots
    scratch = queries.new_empty(laid_out + 2 * scores)
    out = torch.empty_like(queries, dtype=dtype)
    call = _Prompted(
        queries=queries.data_ptr(), keys=keys.data_ptr(), values=values.data_ptr(), out=out.data_ptr(),
        scratch=scratch.data_ptr(), ends=ends.data_ptr(), held=held.data_ptr(),
        head_apart=keys.stride(0), slot_apart=keys.stride(1),
        rows=rows, heads=heads, key_heads=len(keys), size=size, threads=threads, slots=slots,
        scale=scale, causal=causal, out_is_16=dtype is torch.bfloat16,
    )  # fmt: skip
    native.library.attend_to_prompts(ctypes.byref(call))
    return out
