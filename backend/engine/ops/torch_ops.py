"""What a decoder computes between its linear layers: norms, gates, and attention over a cache.

`TORCH` computes it by torch's operations, on every device, in a way that can be recorded; native_ops.py does the
same in C, on CPUs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeAlias

import torch
from torch.nn.functional import rms_norm as functional_rms_norm
from torch.nn.functional import scaled_dot_product_attention, silu

SILENT = 1e-12  # a row whose largest magnitude is less is taken for zeros; as in rowwise.c


@dataclass(frozen=True, eq=False)
class Heads:
    """The heads of a layer, side by side in what it projects: queries, keys, and values in the number of the keys.

    `norm`: (queries + keys, size), which are normalised and rotated together.
    """

    queries: int
    keys: int
    size: int
    norm: torch.Tensor
    epsilon: float

    @cached_property
    def norm_as_float(self) -> torch.Tensor:
        return self.norm.float().contiguous()

    def apart(self, projected: torch.Tensor, cos_sin: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values, (rows, positions, heads, size), rotated to their positions.

        `cos_sin`: cosine and sine, (2, rows or 1, positions, size).
        """
        heads = projected.view(*projected.shape[:2], -1, self.size)
        turning, values = torch.split(heads, [self.queries + self.keys, self.keys], dim=-2)
        turning = functional_rms_norm(turning, turning.shape[-1:], eps=self.epsilon) * self.norm
        cosine, sine = cos_sin.unsqueeze(-2)
        first, second = turning.chunk(2, dim=-1)
        turned = turning * cosine + torch.cat((-second, first), dim=-1) * sine
        queries, keys = torch.split(turned, [self.queries, self.keys], dim=-2)
        return queries, keys, values


# (a layer's heads, what it projects (rows, positions, all heads × size), its part of the cache (2, rows, key heads,
# slots, size)) -> (rows, positions, queries × size). Keys and values are written to the cache.
Attend: TypeAlias = Callable[[Heads, torch.Tensor, torch.Tensor], torch.Tensor]


class Kernels(Protocol):
    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        """Rows (…, size) whose root mean square is 1, times `weight` (size,)."""

    def silu_mul(self, gate_up: torch.Tensor) -> torch.Tensor:
        """(…, 2 × size), gates first -> (…, size)."""

    def prefill_attention(self, cos_sin: torch.Tensor) -> Attend:
        """How each position attends to its row's, up to its own: for all layers.

        `cos_sin`: cosine and sine of each position, (2, positions, size). There are as many slots as positions.
        """

    def decode_attention(self, lengths: torch.Tensor, cos_sin: torch.Tensor) -> Attend:
        """How one position, the next token of every row, attends to what its row has said, itself included.

        For all layers of a step. `lengths` (rows,): slots in use, and so the one to write to; `cos_sin`: cosine and
        sine of each row's position, (2, rows, size).
        """


class _Torch:
    """See Kernels."""

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        return functional_rms_norm(x, x.shape[-1:], weight, epsilon)

    def silu_mul(self, gate_up: torch.Tensor) -> torch.Tensor:
        gate, up = gate_up.chunk(2, dim=-1)
        return silu(gate) * up

    def prefill_attention(self, cos_sin: torch.Tensor) -> Attend:
        def attend(heads: Heads, projected: torch.Tensor, held: torch.Tensor) -> torch.Tensor:
            queries, keys, values = (part.transpose(1, 2) for part in heads.apart(projected, cos_sin[:, None]))
            held[0], held[1] = keys, values
            attended = scaled_dot_product_attention(queries, keys, values, is_causal=True, enable_gqa=True)
            return attended.transpose(1, 2).flatten(2)

        return attend

    def decode_attention(self, lengths: torch.Tensor, cos_sin: torch.Tensor) -> Attend:
        return _Tokens(lengths, cos_sin)


TORCH: Kernels = _Torch()


class _Tokens:
    def __init__(self, lengths: torch.Tensor, cos_sin: torch.Tensor) -> None:
        self._rows = torch.arange(len(lengths), device=lengths.device)
        self._lengths = lengths
        self._cos_sin = cos_sin[:, :, None]
        self._mask: torch.Tensor | None = None  # one for all layers

    def __call__(self, heads: Heads, projected: torch.Tensor, held: torch.Tensor) -> torch.Tensor:
        if self._mask is None:
            self._mask = _mask(self._lengths, held, heads.queries // heads.keys)
        queries, keys, values = heads.apart(projected, self._cos_sin)
        held[0, self._rows, :, self._lengths] = keys[:, 0].to(held.dtype)
        held[1, self._rows, :, self._lengths] = values[:, 0].to(held.dtype)
        return _attended(queries[:, 0], held, self._mask).to(projected.dtype)


def _mask(lengths: torch.Tensor, held: torch.Tensor, sharing: int) -> torch.Tensor:
    """What keeps rows of these lengths from slots they have not written, for `_attended`: 0 or -inf.

    (rows · key heads, heads that share a key head, slots), in the dtype to attend in. On a CPU that is float32 for one
    row: its products are too small for what oneDNN prepares for each one in sixteen bits.
    """
    _, rows, key_heads, slots, _ = held.shape
    dtype = torch.float32 if rows == 1 and held.device.type == "cpu" else held.dtype
    unused = torch.arange(slots, device=held.device) > lengths[:, None]
    mask = torch.zeros_like(unused, dtype=dtype).masked_fill_(unused, -torch.inf)
    return mask[:, None, None].expand(rows, key_heads, sharing, slots).reshape(-1, sharing, slots)


def _attended(queries: torch.Tensor, held: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """One query for each head (rows, heads, size) over a layer's cache.

    Two products over every slot, used or not: neither the slots in use nor a key head for each of its queries is copied
    to be multiplied. For eight rows in bf16 torch's flash attention on CPUs takes a third longer.
    """
    _, rows, key_heads, slots, size = held.shape
    keys, values = held.view(2, rows * key_heads, slots, size).to(mask.dtype)
    asked = queries.reshape(rows * key_heads, -1, size).to(mask.dtype)
    scores = torch.baddbmm(mask, asked, keys.transpose(1, 2), alpha=size**-0.5)
    return torch.bmm(scores.softmax(dim=-1), values).view(rows, 1, -1)


def scaled(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows (rows, size) in float32 whose largest magnitude is 1, and what it was, (rows, 1). Silent rows stay zeros."""
    largest = rows.abs().amax(dim=1, keepdim=True).clamp_min_(SILENT)
    return rows / largest, largest
