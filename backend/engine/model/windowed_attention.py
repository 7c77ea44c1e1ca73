"""Windowed self-attention for the audio encoder, on any device.

Qwen3-ASR's encoder was trained with attention in windows of 8 s that do not see each other. The package computes the
windows' ends (`cu_seqlens`), but only flash-attn uses them: with sdpa or eager attention, tokens attend over the whole
clip. That is quadratic in the clip's length and, beyond 8 s, not what the model was trained with (QwenLM/Qwen3-ASR
issue 213). `windowed_sdpa` keeps tokens inside their windows, in one of two forms:

- packed, for CPUs: the windows one after the other. Our C kernel (ops/prefill_attention.py) takes all of them in one
  call, torch's sdpa one by one.
- in rows, for GPUs: `rows_of` puts the windows into rows of one length, once for all layers. A layer's attention is one
  sdpa with a mask, whatever the number of windows, and nothing in a layer waits for the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import scaled_dot_product_attention

from backend.engine.model.qwen_package import ALL_ATTENTION_FUNCTIONS
from backend.engine.ops.prefill_attention import can_attend, prefill_attention

WINDOWED_SDPA = "windowed_sdpa"

_ROW_MULTIPLE = 8  # CUDA's memory-efficient attention takes a mask whose rows are 16 bytes apart without a copy
_MASKED = -30_000.0  # its exponential is 0 in every dtype, float16 has it, and unlike -inf it never makes a NaN


class Rows(NamedTuple):
    """Where the tokens of packed windows stand in rows of one length. A row holds as many windows as fit.

    Padding repeats the last token of its row, so that it never holds a number that no token holds.
    """

    tokens: NDArray[np.int64]  # (rows, length): the packed token at each place
    places: NDArray[np.int64]  # (tokens,): the place of each packed token, counted through all rows
    queries: NDArray[np.int64]  # (rows, length): the window that each place attends to
    keys: NDArray[np.int64]  # (rows, length): the window that each place belongs to, -1 for padding


def rows_of(windows: Sequence[int]) -> Rows:
    """Put windows of so many tokens, each at least 1, into rows: the longest first, each into the first that has room.

    A row is as long as the longest window, rounded up to a multiple of 8.
    """
    length = -(-max(windows) // _ROW_MULTIPLE) * _ROW_MULTIPLE
    starts = [0, *accumulate(windows)]
    rows: list[list[int]] = []  # the tokens of each row
    for window in sorted(range(len(windows)), key=lambda number: -windows[number]):
        row = next((row for row in rows if len(row) + windows[window] <= length), None)
        if row is None:
            rows.append(row := [])
        row.extend(range(starts[window], starts[window + 1]))
    tokens = np.array([row + row[-1:] * (length - len(row)) for row in rows])
    is_token = np.arange(length) < np.array([[len(row)] for row in rows])
    places = np.empty(starts[-1], np.int64)
    places[tokens[is_token]] = np.flatnonzero(is_token)
    queries = np.repeat(np.arange(len(windows)), windows)[tokens]
    return Rows(tokens, places, queries, np.where(is_token, queries, -1))


def row_mask(queries: torch.Tensor, keys: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What is added to the scores of Rows' `queries` and `keys`: (rows, 1, length, length)."""
    other = queries[:, None, :, None] != keys[:, None, None, :]
    return torch.zeros_like(other, dtype=dtype).masked_fill_(other, _MASKED)


def windowed_sdpa(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    *,
    cu_seq_lens_q: torch.Tensor,
    scaling: float,
    dropout: float = 0.0,
    **_unused: Any,
) -> tuple[torch.Tensor, None]:
    """Attention within each window.

    query, key, value: (1, heads, tokens, head_dim). Without `attention_mask` the windows are packed, and
    `cu_seq_lens_q` (windows + 1,) has their cumulative ends, from 0. With the mask of `row_mask` the tokens are those
    of all rows. Returns (1, tokens, heads, head_dim), as transformers expects of an attention function.
    """
    if attention_mask is not None:
        rows, _, length, _ = attention_mask.shape
        q, k, v = (each.view(each.shape[1], rows, length, -1).transpose(0, 1) for each in (query, key, value))
        output = scaled_dot_product_attention(q, k, v, attn_mask=attention_mask, dropout_p=dropout, scale=scaling)
        return output.transpose(1, 2).flatten(0, 1)[None], None
    if can_attend(query):
        ends = cu_seq_lens_q.to(torch.int64)
        starts = ends[:-1] * key.stride(2)  # of each window's keys, in elements
        packed = query[0].transpose(0, 1)
        return prefill_attention(packed, key[0], value[0], ends, starts, scaling, causal=False)[None], None
    windows = (
        scaled_dot_product_attention(
            query[:, :, start:end], key[:, :, start:end], value[:, :, start:end], dropout_p=dropout, scale=scaling
        )
        for start, end in pairwise(cu_seq_lens_q.tolist())
    )
    return torch.cat([window.transpose(1, 2) for window in windows], dim=1), None


def register() -> None:
    """Register the function with transformers as `windowed_sdpa`. Idempotent."""
    ALL_ATTENTION_FUNCTIONS.register(WINDOWED_SDPA, windowed_sdpa)


def use_windows(model: torch.nn.Module) -> None:
    """Let the audio encoder of a Qwen3-ASR or Qwen3-ForcedAligner model attend within its windows."""
    register()
    model.thinker.audio_tower.config._attn_implementation = WINDOWED_SDPA  # type: ignore[union-attr]
