"""Windowed self-attention for the audio encoder, on any device.

Qwen3-ASR's encoder was trained with attention in windows of 8 s that do not see each other. Qwen's package computes
the windows' ends, but only flash-attn uses them there: with sdpa or eager attention, tokens attend over the whole clip.
That is quadratic in the clip's length and, beyond 8 s, not what the model was trained with (QwenLM/Qwen3-ASR issue
213). Here tokens stay inside their windows, in one of three forms:

- PackedWindows, for CPUs: the windows one after the other. Our C kernel (ops/prefill_attention.py) takes all of them in
  one call, torch's sdpa one by one.
- WindowRows, for GPUs: `rows_of` puts the windows into rows of one length, once for all layers. A layer's attention is
  one sdpa with a mask, whatever the number of windows, and nothing in a layer waits for the device.
- FlashWindows, where the operator names flash-attn: packed, in one call, and nothing waits either.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import scaled_dot_product_attention

from backend.engine.ops.prefill_attention import can_attend, prefill_attention

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


class WindowedAttention(Protocol):
    """The attention of a layer: queries, keys and values (tokens, heads, head size) -> (tokens, heads, head size)."""

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, /) -> torch.Tensor: ...


class PackedWindows:
    """See WindowedAttention. The tokens of the windows, one window after the other."""

    def __init__(self, windows: Sequence[int]) -> None:
        """`windows`: their tokens."""
        self._ends = [0, *accumulate(windows)]

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        scale = query.shape[-1] ** -0.5
        if can_attend(query):
            ends = torch.tensor(self._ends)
            starts = ends[:-1] * key.stride(0)  # of each window's keys, in elements
            keys, values = key.transpose(0, 1), value.transpose(0, 1)
            return prefill_attention(query, keys, values, ends, starts, scale, causal=False)
        q, k, v = (each.transpose(0, 1)[None] for each in (query, key, value))
        attended = [
            scaled_dot_product_attention(q[:, :, start:end], k[:, :, start:end], v[:, :, start:end], scale=scale)
            for start, end in pairwise(self._ends)
        ]
        return torch.cat([window.transpose(1, 2) for window in attended], dim=1)[0]


class WindowRows:
    """See WindowedAttention. The tokens of all rows of `rows_of`, one row after the other."""

    def __init__(self, mask: torch.Tensor) -> None:
        """`mask`: of `row_mask`."""
        self._mask = mask

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        rows, _, length, _ = self._mask.shape
        q, k, v = (each.view(rows, length, *each.shape[1:]).transpose(1, 2) for each in (query, key, value))
        scale = query.shape[-1] ** -0.5
        attended = scaled_dot_product_attention(q, k, v, attn_mask=self._mask, scale=scale)
        return attended.transpose(1, 2).flatten(0, 1)


class FlashWindows:
    """See WindowedAttention. As PackedWindows, by flash-attn, which is imported for it (see ops/gpu_build.py)."""

    def __init__(self, ends: torch.Tensor, longest: int) -> None:
        """`ends` (windows + 1,): cumulative, from 0 on, int32 on the device. `longest`: tokens of the longest window,
        in the host's memory, so that no layer waits for it.
        """
        from flash_attn import flash_attn_varlen_func

        self._attend = flash_attn_varlen_func
        self._ends, self._longest = ends, longest

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        attended: torch.Tensor = self._attend(
            query, key, value, self._ends, self._ends, self._longest, self._longest, causal=False
        )
        return attended
