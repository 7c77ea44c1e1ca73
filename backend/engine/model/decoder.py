"""Qwen3's text model as few, large operations over a cache that is there beforehand.

The arithmetic is the package's (test_session.py holds both against each other); the shape of the work is ours: stacked
projections, the head on the last position only, keys and values written in place, and one call for how a token attends
(engine/ops/torch_ops). Prompts stand at the left of their rows: what follows a row's end is masked by causality while
the prompts are read, and by `lengths` afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from backend.engine.model.kv_cache import KVCache
from backend.engine.ops.linear import MakeLayer, dense_linear
from backend.engine.ops.native_ops import kernels_for
from backend.engine.ops.torch_ops import TORCH, Attend, Heads, Kernels


class _Layer:
    """One decoder layer of the package's, its projections stacked."""

    def __init__(self, layer: Any, make: MakeLayer, dtype: torch.dtype) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.qkv = make([attention.q_proj, attention.k_proj, attention.v_proj])
        self.out = make([attention.o_proj])
        self.gate_up = make([mlp.gate_proj, mlp.up_proj])
        self.down = make([mlp.down_proj])
        self.before_attention: torch.Tensor = layer.input_layernorm.weight.to(dtype)
        self.before_mlp: torch.Tensor = layer.post_attention_layernorm.weight.to(dtype)
        queries = attention.q_proj.out_features // attention.head_dim
        keys = attention.k_proj.out_features // attention.head_dim
        norms = attention.q_norm.weight.expand(queries, -1), attention.k_norm.weight.expand(keys, -1)
        epsilon: float = attention.q_norm.variance_epsilon
        self.heads = Heads(queries, keys, attention.head_dim, torch.cat(norms).to(dtype), epsilon)


class Decoder:
    """The decoder of a loaded Qwen3-ASR, whose linear layers it takes over (see engine/ops/linear).

    `dtype`: of what flows between the layers; None: the model's own, in which keys and values are kept in any case.
    """

    def __init__(self, thinker: Any, make: MakeLayer = dense_linear, dtype: torch.dtype | None = None) -> None:
        text = thinker.model
        self.dtype = dtype or text.norm.weight.dtype
        self._embedding: nn.Embedding = text.embed_tokens
        self.head = make([thinker.lm_head])  # the largest first: what it takes to make it is given back to the others
        self.layers = [_Layer(layer, make, self.dtype) for layer in text.layers]
        self.norm: torch.Tensor = text.norm.weight.to(self.dtype)
        self.epsilon: float = text.norm.variance_epsilon
        self._rotary = text.rotary_emb
        self._kernels = kernels_for(self.layers[0].heads, self._embedding.weight)
        self._cos_sin = torch.empty(0)  # cosine and sine of every position so far, (2, positions, head size)

    @property
    def extra_bytes(self) -> int:
        """Bytes of weights beyond the model's own parameters."""
        return self.head.bytes + sum(
            part.bytes for layer in self.layers for part in (layer.qkv, layer.out, layer.gate_up, layer.down)
        )

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        return self._embedding.num_embeddings

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """(…,) tokens -> (…, hidden)."""
        embedded: torch.Tensor = self._embedding(tokens)
        return embedded.to(self.dtype)

    def prefill(
        self, embedded: torch.Tensor, lengths: torch.Tensor, cache: KVCache | None = None
    ) -> tuple[torch.Tensor, KVCache]:
        """Prompts, embedded (rows, longest, hidden) and lengths (rows,), beside the rows of a cache.

        Gives the logits (rows, vocabulary) of what follows, and the cache to go on with. Without memory for more rows
        those that are there go on.
        """
        rows, longest, _ = embedded.shape
        if cache is None:
            heads = self.layers[0].heads
            cache = KVCache(len(self.layers), heads.keys, heads.size, self._embedding.weight)
        last = torch.arange(rows, device=embedded.device), lengths - 1
        logits = self._logits(self._read(embedded, cache.guests(rows, longest), last), self._kernels)
        cache.enter(lengths, [longest] * rows)
        return logits, cache

    def score(self, embedded: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Of prompts as in `read`: logits (places, vocabulary) of what follows some places, (rows, longest) of bool."""
        rows, longest, _ = embedded.shape
        heads = self.layers[0].heads
        held = self._embedding.weight.new_empty(2, rows, heads.keys, longest, heads.size)  # one for all layers
        return self._logits(self._read(embedded, [held] * len(self.layers), (places,)), self._kernels)

    def decode_step(self, tokens: torch.Tensor, cache: KVCache) -> torch.Tensor:
        """One more token for each row, (rows,) -> logits (rows, vocabulary) of what follows it."""
        if len(tokens) != cache.rows:
            raise ValueError("a token for each row")
        held = cache.grow()
        logits = self.advanced(tokens, held, cache.lengths, self.cos_sin(held.shape[4]), self._kernels)
        cache.advance()
        return logits

    def advanced(
        self,
        tokens: torch.Tensor,
        cache: torch.Tensor,
        lengths: torch.Tensor,
        cos_sin: torch.Tensor,
        kernels: Kernels = TORCH,
    ) -> torch.Tensor:
        """A step on the slots of a cache, in which there is room. By torch's kernels it asks for no value, so it can be
        recorded."""
        attend = kernels.decode_attention(lengths, cos_sin[:, lengths])
        return self._logits(self._through(self.embed(tokens)[:, None], cache, attend, kernels)[:, 0], kernels)

    def cos_sin(self, positions: int) -> torch.Tensor:
        """Cosine and sine of at least so many positions, (2, positions, head size). The package's, kept."""
        if self._cos_sin.ndim == 1 or self._cos_sin.shape[1] < positions:
            every = torch.arange(max(1024, 2 * positions), device=self.norm.device)[None]
            self._cos_sin = torch.stack(self._rotary(self.norm, every))[:, 0]
        return self._cos_sin

    def _read(
        self, embedded: torch.Tensor, cache: Iterable[torch.Tensor], places: tuple[torch.Tensor, ...]
    ) -> torch.Tensor:
        """What all layers make of some places of prompts, (places, hidden)."""
        longest = embedded.shape[1]
        attend = self._kernels.prefill_attention(self.cos_sin(longest)[:, :longest])
        return self._through(embedded, cache, attend, self._kernels, places)

    def _through(
        self,
        hidden: torch.Tensor,
        cache: Iterable[torch.Tensor],
        attend: Attend,
        kernels: Kernels,
        places: tuple[torch.Tensor, ...] = (),
    ) -> torch.Tensor:
        """What all layers make of (rows, positions, hidden), or of the `places` there, as an index of the first two.

        Keys and values are written to `cache`.
        """
        for layer, held in zip(self.layers, cache, strict=True):
            projected = layer.qkv(kernels.rms_norm(hidden, layer.before_attention, self.epsilon))
            attended = attend(layer.heads, projected, held)
            if places and layer is self.layers[-1]:  # of the others nothing more is asked
                hidden, attended = hidden[places], attended[places]
            hidden = hidden + layer.out(attended)
            gate_up = layer.gate_up(kernels.rms_norm(hidden, layer.before_mlp, self.epsilon))
            hidden = hidden + layer.down(kernels.silu_mul(gate_up))
        return hidden

    def _logits(self, hidden: torch.Tensor, kernels: Kernels) -> torch.Tensor:
        return self.head(kernels.rms_norm(hidden, self.norm, self.epsilon))
