"""Qwen3's text model as few, large operations over a cache that is there beforehand.

The arithmetic is the package's (test_decoder.py holds both against each other); the shape of the work is ours: stacked
projections, the head on the last position only, keys and values written in place, and queries that share a key head
as one attention call. Prompts stand at the left of their rows: what follows a row's end is masked by causality while
the prompts are read, and by `lengths` afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.functional import pad, rms_norm, scaled_dot_product_attention, silu

from backend.engine.linear import Linear, stacked

_ROOM = 64  # slots that a cache grows by: a copy of it every 64 tokens


@dataclass
class Cache:
    """Keys and values of a batch: (layers, 2, rows, slots, key heads, head size), and `lengths` (rows,) in use."""

    tensor: torch.Tensor
    lengths: torch.Tensor

    @property
    def slots(self) -> int:
        return self.tensor.shape[3]

    def keep(self, rows: torch.Tensor) -> None:
        """Only these rows, in this order."""
        self.tensor = self.tensor[:, :, rows]
        self.lengths = self.lengths[rows]

    def joined(self, other: Cache) -> Cache:
        """These rows and then the other's."""
        slots = max(self.slots, other.slots)
        rows = [_with_slots(self.tensor, slots), _with_slots(other.tensor, slots)]
        return Cache(torch.cat(rows, dim=2), torch.cat([self.lengths, other.lengths]))

    def make_room(self) -> None:
        """For one more token in the longest row."""
        needed = int(self.lengths.max()) + 1
        if needed > self.slots:
            self.tensor = _with_slots(self.tensor, needed + _ROOM)


def _with_slots(tensor: torch.Tensor, slots: int) -> torch.Tensor:
    """A cache's tensor with so many slots, at least as many as it has; the new ones are zero."""
    return pad(tensor, (0, 0, 0, 0, 0, slots - tensor.shape[3])) if slots > tensor.shape[3] else tensor


class _Layer:
    """One decoder layer of the package's, its projections stacked."""

    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.qkv = stacked([attention.q_proj, attention.k_proj, attention.v_proj])
        self.out = Linear(attention.o_proj)
        self.gate_up = stacked([mlp.gate_proj, mlp.up_proj])
        self.down = Linear(mlp.down_proj)
        self.before_attention: torch.Tensor = layer.input_layernorm.weight
        self.before_mlp: torch.Tensor = layer.post_attention_layernorm.weight
        self.heads = attention.q_proj.out_features // attention.head_dim
        self.key_heads = attention.k_proj.out_features // attention.head_dim
        self.head_size: int = attention.head_dim
        # (heads + key heads, head size): queries and keys are normalised and rotated together
        self.head_norm = torch.cat([
            attention.q_norm.weight.expand(self.heads, -1), attention.k_norm.weight.expand(self.key_heads, -1)
        ])  # fmt: skip


class Decoder:
    """The decoder of a loaded Qwen3-ASR. Its projections become views of stacked ones: there is one copy of them."""

    def __init__(self, thinker: Any) -> None:
        text = thinker.model
        self.embed: nn.Embedding = text.embed_tokens
        self.layers = [_Layer(layer) for layer in text.layers]
        self.head = Linear(thinker.lm_head)
        self.norm: torch.Tensor = text.norm.weight
        self.epsilon: float = text.norm.variance_epsilon
        self._rotary = text.rotary_emb
        self._angles = torch.empty(0)  # cosine and sine of every position so far, (2, positions, head size)

    def cache(self, rows: int, slots: int) -> Cache:
        """An empty cache for so many rows of so many tokens."""
        layer = self.layers[0]
        weight = self.norm
        shape = (len(self.layers), 2, rows, slots + _ROOM, layer.key_heads, layer.head_size)
        return Cache(weight.new_zeros(shape), torch.zeros(rows, dtype=torch.long, device=weight.device))

    def read(self, embedded: torch.Tensor, lengths: torch.Tensor, cache: Cache) -> torch.Tensor:
        """Prompts, embedded (rows, longest, hidden), lengths (rows,) -> logits (rows, vocabulary) of what follows."""
        longest = embedded.shape[1]
        angles = self._angles_of(torch.arange(longest, device=embedded.device))[:, None]  # 2, 1, longest, head size
        hidden = embedded
        for number, layer in enumerate(self.layers):
            queries, keys, values = self._projected(layer, hidden, angles)
            cache.tensor[number, 0, :, :longest] = keys
            cache.tensor[number, 1, :, :longest] = values
            attended = scaled_dot_product_attention(
                queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2), is_causal=True, enable_gqa=True
            )
            hidden = self._mixed(layer, hidden, attended.transpose(1, 2))
        cache.lengths = lengths.clone()
        last = hidden[torch.arange(len(lengths), device=hidden.device), lengths - 1]
        return self._logits(last)

    def step(self, tokens: torch.Tensor, cache: Cache) -> torch.Tensor:
        """One more token for each row, (rows,) -> logits (rows, vocabulary) of what follows it."""
        cache.make_room()
        rows = torch.arange(len(tokens), device=tokens.device)
        slots = int(cache.lengths.max()) + 1
        angles = self._angles_of(cache.lengths)[:, :, None]  # 2, rows, 1, head size
        hidden = self.embed(tokens)[:, None]
        mask = None
        if len(tokens) > 1:
            mask = (torch.arange(slots, device=tokens.device) <= cache.lengths[:, None])[:, None, None]
        for number, layer in enumerate(self.layers):
            queries, keys, values = self._projected(layer, hidden, angles)
            held = cache.tensor[number]
            held[0, rows, cache.lengths] = keys[:, 0]
            held[1, rows, cache.lengths] = values[:, 0]
            # the queries that share a key head stand in for positions: no copy of keys and values for each of them
            grouped = queries.view(len(tokens), layer.key_heads, -1, layer.head_size)
            attended = scaled_dot_product_attention(
                grouped, held[0, :, :slots].transpose(1, 2), held[1, :, :slots].transpose(1, 2), attn_mask=mask
            )
            hidden = self._mixed(layer, hidden, attended)
        cache.lengths = cache.lengths + 1
        return self._logits(hidden[:, 0])

    def _projected(
        self, layer: _Layer, hidden: torch.Tensor, angles: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values of a layer, (rows, positions, heads, head size), rotated to their positions."""
        heads = layer.qkv(self._normed(hidden, layer.before_attention)).view(*hidden.shape[:2], -1, layer.head_size)
        turning, values = torch.split(heads, [layer.heads + layer.key_heads, layer.key_heads], dim=-2)
        turning = rms_norm(turning, turning.shape[-1:], eps=self.epsilon) * layer.head_norm
        cosine, sine = angles.unsqueeze(-2)
        first, second = turning.chunk(2, dim=-1)
        turned = turning * cosine + torch.cat((-second, first), dim=-1) * sine
        queries, keys = torch.split(turned, [layer.heads, layer.key_heads], dim=-2)
        return queries, keys, values

    def _mixed(self, layer: _Layer, hidden: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        """What a layer leaves: (rows, positions, hidden)."""
        hidden = hidden + layer.out(attended.reshape(*hidden.shape[:2], -1))
        gate, up = layer.gate_up(self._normed(hidden, layer.before_mlp)).chunk(2, dim=-1)
        return hidden + layer.down(silu(gate) * up)

    def _normed(self, hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return rms_norm(hidden, hidden.shape[-1:], weight, self.epsilon)

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.head(self._normed(hidden, self.norm))

    def _angles_of(self, positions: torch.Tensor) -> torch.Tensor:
        """Cosine and sine of positions, (2, *positions.shape, head size). The package's own, computed once."""
        needed = int(positions.max()) + 1
        if self._angles.ndim == 1 or self._angles.shape[1] < needed:
            every = torch.arange(max(1024, 2 * needed), device=positions.device)[None]
            self._angles = torch.stack(self._rotary(self.norm, every))[:, 0]
        return self._angles[:, positions]
