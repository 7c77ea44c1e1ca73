"""Qwen3's text decoder: prefill and decode steps over a KV cache.

A layer is RMSNorm, grouped-query attention (GQA) with RMS-normalised heads and rotary embedding (RoPE), RMSNorm, and a
SwiGLU MLP, each half with a residual connection. The arithmetic is that of Qwen's package (test_session.py compares the
tokens of both). The shape of the work is ours:

- Projections that share their input are stacked into one matrix product: queries, keys and values; gate and up.
- A prompt's LM head is computed for the positions that are asked for, not for all of them.
- Keys and values are written in place, into a KV cache that is allocated beforehand (kv_cache.py).
- RMSNorm, SwiGLU, and attention with its RoPE come from `Kernels`: torch's operations, or C (engine/ops/torch_ops).

Prompts of a batch are padded on the right. The causal mask hides the padding during prefill, the cache's `lengths` hide
it in every decode step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from backend.checkpoint.model_config import DecoderConfig
from backend.engine.model.kv_cache import KVCache
from backend.engine.ops.linear import MakeLayer, dense_linear
from backend.engine.ops.native_ops import kernels_for
from backend.engine.ops.torch_ops import TORCH, Attend, Heads, Kernels


class _Layer:
    """The weights of one decoder layer, its projections stacked."""

    def __init__(self, layer: Any, config: DecoderConfig, make: MakeLayer, dtype: torch.dtype) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.qkv = make([attention.q_proj, attention.k_proj, attention.v_proj])
        self.output = make([attention.o_proj])
        self.gate_up = make([mlp.gate_proj, mlp.up_proj])
        self.down = make([mlp.down_proj])
        self.attention_norm: torch.Tensor = layer.input_layernorm.weight.to(dtype)
        self.mlp_norm: torch.Tensor = layer.post_attention_layernorm.weight.to(dtype)
        queries, keys = config.heads, config.kv_heads
        head_norms = attention.q_norm.weight.expand(queries, -1), attention.k_norm.weight.expand(keys, -1)
        self.heads = Heads(queries, keys, config.head_size, torch.cat(head_norms).to(dtype), config.norm_epsilon)


class Decoder:
    """The text decoder of a loaded Qwen3-ASR or Qwen3-ForcedAligner, which gives up its linear layers to it.

    `make`: makes each linear layer, see engine/ops/linear. `dtype`: of the activations between the layers; None: the
    model's own, which the KV cache has in any case.
    """

    def __init__(
        self, thinker: Any, config: DecoderConfig, make: MakeLayer = dense_linear, dtype: torch.dtype | None = None
    ) -> None:
        text = thinker.model
        self.dtype = dtype or text.norm.weight.dtype
        self._embedding: nn.Embedding = text.embed_tokens
        self.lm_head = make([thinker.lm_head])  # the largest first: the layers reuse the memory that making it took
        self.layers = [_Layer(layer, config, make, self.dtype) for layer in text.layers]
        self.norm: torch.Tensor = text.norm.weight.to(self.dtype)
        self.epsilon = config.norm_epsilon
        self._rope_frequencies = _rope_frequencies(config).to(self.norm.device)
        self._kernels = kernels_for(self.layers[0].heads, self._embedding.weight)
        self._rope = torch.empty(0)  # what rope_cos_sin gave last

    @property
    def extra_bytes(self) -> int:
        """Bytes of weights beyond the model's own parameters."""
        return self.lm_head.bytes + sum(
            part.bytes for layer in self.layers for part in (layer.qkv, layer.output, layer.gate_up, layer.down)
        )

    @property
    def vocab_size(self) -> int:
        return self._embedding.num_embeddings

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """(…,) tokens -> (…, hidden)."""
        embedded: torch.Tensor = self._embedding(tokens)
        return embedded.to(self.dtype)

    def new_cache(self) -> KVCache:
        """A KV cache without rows."""
        heads = self.layers[0].heads
        return KVCache(len(self.layers), heads.keys, heads.size, self._embedding.weight)

    def prefill(
        self,
        embedded: torch.Tensor,
        lengths: Sequence[int],
        cache: KVCache | None = None,
        outputs: Sequence[int] | None = None,
    ) -> tuple[torch.Tensor, KVCache]:
        """Run prompts through all layers and append their keys and values to `cache`, or to a new one.

        embedded: (rows, longest prompt, hidden), padded on the right; lengths: of each prompt. Returns the logits
        of each prompt's next token, (rows, vocabulary), and the cache. If memory runs out, the cache keeps the rows it
        had. `outputs`: how many last positions of each prompt have logits, (sum, vocabulary), row by row; None: one.
        """
        rows, longest, _ = embedded.shape
        cache = self.new_cache() if cache is None else cache
        ends = zip(range(rows), lengths, outputs or [1] * rows, strict=True)
        places = [(row, at) for row, length, count in ends for at in range(length - count, length)]
        wanted = tuple(torch.tensor(places, device=embedded.device).T)
        hidden = self._run_prompts(embedded, cache.reserve_rows(rows, longest), wanted)
        logits = self._logits(hidden, self._kernels)
        cache.append_rows(lengths)
        return logits, cache

    def score_positions(self, embedded: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """One forward pass without a KV cache, as the forced aligner needs it.

        embedded: as in `prefill`; positions: (rows, longest prompt) of bool, in the host's memory. Returns the
        logits (positions that are true, vocabulary), row by row.
        """
        rows, longest, _ = embedded.shape
        heads = self.layers[0].heads
        scratch = self._embedding.weight.new_empty(2, rows, heads.keys, longest, heads.size)  # of each layer in turn
        wanted = tuple(positions.nonzero().T.to(embedded.device))
        hidden = self._run_prompts(embedded, [scratch] * len(self.layers), wanted)
        return self._logits(hidden, self._kernels)

    def decode_step(self, tokens: torch.Tensor, cache: KVCache) -> torch.Tensor:
        """Append one token to each row of `cache`: (rows,) -> logits of the next token, (rows, vocabulary)."""
        if len(tokens) != cache.rows:
            raise ValueError("a decode step takes one token for each row")
        kv = cache.grow()
        logits = self.forward_step(tokens, kv, cache.lengths, self.rope_cos_sin(kv.shape[4]), self._kernels)
        cache.advance()
        return logits

    def forward_step(
        self,
        tokens: torch.Tensor,
        kv: torch.Tensor,
        lengths: torch.Tensor,
        cos_sin: torch.Tensor,
        kernels: Kernels = TORCH,
    ) -> torch.Tensor:
        """`decode_step` on bare tensors: `kv` as in KVCache.kv, with room for one more position in every row.

        With torch's kernels it never waits for a value from the device, so a CUDA graph can capture it.
        """
        attend = kernels.decode_attention(lengths, cos_sin[:, lengths])
        return self._logits(self._run_layers(self.embed(tokens)[:, None], kv, attend, kernels)[:, 0], kernels)

    def rope_cos_sin(self, positions: int) -> torch.Tensor:
        """RoPE's cosine and sine of at least so many positions, (2, positions, head size)."""
        if self._rope.ndim == 1 or self._rope.shape[1] < positions:
            self._rope = _cos_sin(max(1024, 2 * positions), self._rope_frequencies, self.dtype)
        return self._rope

    def _run_prompts(
        self, embedded: torch.Tensor, kv: Iterable[torch.Tensor], outputs: tuple[torch.Tensor, ...]
    ) -> torch.Tensor:
        """The last layer's output of whole prompts, at the positions `outputs`: (positions, hidden)."""
        longest = embedded.shape[1]
        attend = self._kernels.prefill_attention(self.rope_cos_sin(longest)[:, :longest])
        return self._run_layers(embedded, kv, attend, self._kernels, outputs)

    def _run_layers(
        self,
        hidden: torch.Tensor,
        kv: Iterable[torch.Tensor],
        attend: Attend,
        kernels: Kernels,
        outputs: tuple[torch.Tensor, ...] = (),
    ) -> torch.Tensor:
        """Run (rows, positions, hidden) through all layers; each writes its keys and values into its part of `kv`.

        `outputs`: an index of the first two dimensions, the positions that are returned; all of them without it.
        """
        for layer, layer_kv in zip(self.layers, kv, strict=True):
            qkv = layer.qkv(kernels.rms_norm(hidden, layer.attention_norm, self.epsilon))
            attended = attend(layer.heads, qkv, layer_kv)
            if outputs and layer is self.layers[-1]:  # no later layer needs the other positions
                hidden, attended = hidden[outputs], attended[outputs]
            hidden = hidden + layer.output(attended)
            gate_up = layer.gate_up(kernels.rms_norm(hidden, layer.mlp_norm, self.epsilon))
            hidden = hidden + layer.down(kernels.silu_mul(gate_up))
        return hidden

    def _logits(self, hidden: torch.Tensor, kernels: Kernels) -> torch.Tensor:
        return self.lm_head(kernels.rms_norm(hidden, self.norm, self.epsilon))


def _rope_frequencies(config: DecoderConfig) -> torch.Tensor:
    """RoPE's angle per position, for each half of a head: theta^(-2i / head size), (head size / 2,) in float32."""
    exponents = torch.arange(0, config.head_size, 2, dtype=torch.float32) / config.head_size
    frequencies: torch.Tensor = 1.0 / config.rope_theta**exponents
    return frequencies


def _cos_sin(positions: int, frequencies: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Cosine and sine of the angles, (2, positions, head size), the same for both halves of a head.

    Qwen's three axes of positions (M-RoPE) are equal for sound and text, so one axis is all.
    """
    angles = torch.arange(positions, dtype=torch.float32, device=frequencies.device)[:, None] * frequencies
    both_halves = torch.cat([angles, angles], dim=1)
    return torch.stack([both_halves.cos(), both_halves.sin()]).to(dtype)
