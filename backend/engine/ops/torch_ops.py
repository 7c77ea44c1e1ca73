"""What a decoder computes between its linear layers: RMSNorm, SiLU gating, QK-norm, RoPE, attention over a KV cache.

`TORCH` computes it by torch's operations, on every device, without asking the device for a value, so that a CUDA graph
can record it. native_ops.py computes the same in C on CPUs; `TORCH` is the oracle of its tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Protocol, TypeAlias

import torch
from torch.nn.functional import rms_norm as functional_rms_norm
from torch.nn.functional import scaled_dot_product_attention, silu

MIN_ABSMAX = 1e-12  # a row of zeros is divided by this; as in rowwise.c


@dataclass(frozen=True, eq=False)
class Heads:
    """The attention heads of a layer (GQA): `queries` query heads, and `keys` key heads with as many value heads.

    The layer's projection has them side by side, queries first, then keys, then values. `size`: of a head. `norm`
    (queries + keys, size): the weights of the QK-norm, one row for each query and key head; `epsilon`: its own.
    """

    queries: int
    keys: int
    size: int
    norm: torch.Tensor
    epsilon: float

    @cached_property
    def norm_float32(self) -> torch.Tensor:
        return self.norm.float().contiguous()

    def split_and_rotate(
        self, projected: torch.Tensor, cos_sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values, (rows, positions, heads, size) each, of a projection (rows, positions, all heads x
        size). Queries and keys are RMS-normalised, then rotated to their positions (RoPE).

        `cos_sin`: cosines and signed sines of the positions, (2, rows or 1, positions, size), see signed.
        """
        heads = projected.view(*projected.shape[:2], -1, self.size)
        queries_keys, values = torch.split(heads, [self.queries + self.keys, self.keys], dim=-2)
        normed = functional_rms_norm(queries_keys, queries_keys.shape[-1:], eps=self.epsilon) * self.norm
        cosine, sine = cos_sin.unsqueeze(-2)
        rotated = normed * cosine + normed.roll(self.size // 2, dims=-1) * sine
        queries, keys = torch.split(rotated, [self.queries, self.keys], dim=-2)
        return queries, keys, values


# The attention of one layer: (its heads, its projection (rows, positions, all heads x size), its part of the KV cache
# (2, rows, key heads, slots, size), keys first) -> (rows, positions, query heads x size). Writes keys and values to the
# cache.
Attend: TypeAlias = Callable[[Heads, torch.Tensor, torch.Tensor], torch.Tensor]


class Kernels(Protocol):
    """The operations of a decoder between its linear layers, by torch or in C."""

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        """RMSNorm of rows (…, size): divided by their root mean square, times `weight` (size,)."""

    def silu_mul(self, gate_up: torch.Tensor) -> torch.Tensor:
        """silu(gate) * up of (…, 2 x size), gates first -> (…, size)."""

    def prefill_attention(self, cos_sin: torch.Tensor) -> Attend:
        """Causal attention of prompts, for all layers: each position attends to its row's positions up to itself.

        `cos_sin`: cosines and sines of the positions, (2, positions, size). The cache has as many slots as positions.
        """

    def decode_attention(self, lengths: torch.Tensor, cos_sin: torch.Tensor) -> Attend:
        """Attention of a decode step, for all layers: each row's new token attends to the row's slots and itself.

        `lengths` (rows,): slots in use, so also the slot to write. `cos_sin`: cosine and sine of each row's position,
        (2, rows, size).
        """


class _Torch:
    """See Kernels."""

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        return functional_rms_norm(x, x.shape[-1:], weight, epsilon)

    def silu_mul(self, gate_up: torch.Tensor) -> torch.Tensor:
        gate, up = gate_up.chunk(2, dim=-1)
        return silu(gate) * up

    def prefill_attention(self, cos_sin: torch.Tensor) -> Attend:
        rotation = signed(cos_sin)[:, None]

        def attend(heads: Heads, projected: torch.Tensor, kv: torch.Tensor) -> torch.Tensor:
            split = heads.split_and_rotate(projected, rotation)
            queries, keys, values = (part.transpose(1, 2) for part in split)
            kv[0], kv[1] = keys, values
            attended = scaled_dot_product_attention(queries, keys, values, is_causal=True, enable_gqa=True)
            return attended.transpose(1, 2).flatten(2)

        return attend

    def decode_attention(self, lengths: torch.Tensor, cos_sin: torch.Tensor) -> Attend:
        return _DecodeAttention(lengths, cos_sin)


TORCH: Kernels = _Torch()


class _DecodeAttention:
    """An Attend. The mask is computed by the first layer and serves all layers."""

    def __init__(self, lengths: torch.Tensor, cos_sin: torch.Tensor) -> None:
        self._rows = torch.arange(len(lengths), device=lengths.device)
        self._lengths = lengths
        self._cos_sin = signed(cos_sin)[:, :, None]
        self._mask: torch.Tensor | None = None

    def __call__(self, heads: Heads, projected: torch.Tensor, kv: torch.Tensor) -> torch.Tensor:
        if self._mask is None:
            self._mask = _length_mask(self._lengths, kv, heads.queries // heads.keys)
        queries, keys, values = heads.split_and_rotate(projected, self._cos_sin)
        kv[0, self._rows, :, self._lengths] = keys[:, 0].to(kv.dtype)
        kv[1, self._rows, :, self._lengths] = values[:, 0].to(kv.dtype)
        return _attend_to_cache(queries[:, 0], kv, self._mask).to(projected.dtype)


def signed(cos_sin: torch.Tensor) -> torch.Tensor:
    """(2, …, size) with the first half of the sines negated. So a layer rotates by one roll, without a negated copy."""
    cosine, sine = cos_sin
    first, second = sine.chunk(2, dim=-1)
    return torch.stack([cosine, torch.cat([-first, second], dim=-1)])


def _length_mask(lengths: torch.Tensor, kv: torch.Tensor, sharing: int) -> torch.Tensor:
    """The additive mask, 0 or -inf, that hides the slots which rows of these lengths have not written.

    `sharing`: query heads that share a key head. Returns (rows x key heads, sharing, slots) float32.
    """
    _, rows, key_heads, slots, _ = kv.shape
    unused = torch.arange(slots, device=kv.device) > lengths[:, None]
    mask = torch.zeros_like(unused, dtype=torch.float32).masked_fill_(unused, -torch.inf)
    return mask[:, None, None].expand(rows, key_heads, sharing, slots).reshape(-1, sharing, slots)


def _attend_to_cache(queries: torch.Tensor, kv: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """One query for each head, (rows, heads, size), over a layer's cache -> (rows, 1, heads x size).

    Two batched products over every slot, used or not: neither the slots in use nor a key head for each of its query
    heads is copied. For eight rows in bf16 torch's flash attention on CPUs takes a third longer.

    Scores and softmax are in float32, as in flash attention and in attention.c: QK-norms let scores reach tens, where
    bf16 has steps of 0.25, and a score that is wrong by so much changes its weight by a quarter.
    """
    _, rows, key_heads, slots, size = kv.shape
    if rows == 1 and kv.device.type == "cpu":
        kv = kv.float()  # the products are so small that oneDNN's preparation of each in bf16 costs more
    keys, values = kv.view(2, rows * key_heads, slots, size)
    grouped = queries.reshape(rows * key_heads, -1, size).to(keys.dtype)
    scores = torch.add(mask, _float32_product(grouped, keys.transpose(1, 2)), alpha=size**-0.5)
    return torch.bmm(scores.softmax(dim=-1).to(values.dtype), values).view(rows, 1, -1)


def _float32_product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The batched product of two tensors of any dtype, in float32."""
    if left.dtype is torch.float32:
        return torch.bmm(left, right)
    if _multiplies_to_float32(left.device, left.dtype):
        return torch.bmm(left, right, out_dtype=torch.float32)
    return torch.bmm(left.float(), right.float())


@cache
def _multiplies_to_float32(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether torch multiplies tensors of the dtype to float32 on the device without a copy of them: tried once."""
    ones = torch.ones(1, 16, 16, device=device, dtype=dtype)
    try:
        return bool((torch.bmm(ones, ones, out_dtype=torch.float32) == 16).all())
    except RuntimeError:  # NotImplementedError is one, too
        return False


def scale_by_absmax(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """float32 rows (rows, size) divided by their absmax (largest magnitude); and it, (rows, 1), at least MIN_ABSMAX."""
    absmax = rows.abs().amax(dim=1, keepdim=True).clamp_min_(MIN_ABSMAX)
    return rows / absmax, absmax
