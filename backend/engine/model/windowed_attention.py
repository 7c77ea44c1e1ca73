"""Windowed self-attention for the audio encoder, on any device.

Qwen3-ASR's encoder was trained with attention in windows of 8 s that do not see each other. The package computes the
windows' ends (`cu_seqlens`), but only flash-attn uses them: with sdpa or eager attention, tokens attend over the whole
clip. That is quadratic in the clip's length and, beyond 8 s, not what the model was trained with (QwenLM/Qwen3-ASR
issue 213). `windowed_sdpa` uses the ends, in our C kernel (ops/prefill_attention.py) or in torch's sdpa on windows that
are padded to one batch.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.nn.utils.rnn import pad_sequence
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from backend.engine.ops.prefill_attention import can_attend, prefill_attention

WINDOWED_SDPA = "windowed_sdpa"


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
    """Attention within each window of a packed sequence.

    query, key, value: (1, heads, tokens, head_dim); cu_seq_lens_q: (windows + 1,) cumulative window ends, from 0.
    Returns (1, tokens, heads, head_dim), as transformers expects of an attention function.
    """
    if can_attend(query):
        ends = cu_seq_lens_q.to(torch.int64)
        starts = ends[:-1] * key.stride(2)  # of each window's keys, in elements
        return prefill_attention(query[0].transpose(0, 1), key[0], value[0], ends, starts, scaling, causal=False)[
            None
        ], None
    lengths = [end - start for start, end in pairwise(cu_seq_lens_q.tolist())]
    packed = torch.stack([query[0], key[0], value[0]]).permute(2, 0, 1, 3)  # tokens, qkv, heads, head_dim
    padded = pad_sequence(
        list(torch.split(packed, lengths)), batch_first=True
    )  # windows, longest, qkv, heads, head_dim
    q, k, v = padded.permute(2, 0, 3, 1, 4)
    # (windows, longest): True for a token, False for padding
    is_token = torch.arange(padded.shape[1], device=query.device) < torch.tensor(lengths, device=query.device)[:, None]
    mask = None if bool(is_token.all()) else is_token[:, None, None, :]
    output = scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, scale=scaling)
    return output.transpose(1, 2)[is_token].unsqueeze(0), None


def register() -> None:
    """Register the function with transformers as `windowed_sdpa`. Idempotent."""
    ALL_ATTENTION_FUNCTIONS.register(WINDOWED_SDPA, windowed_sdpa)


def use_windows(model: torch.nn.Module) -> None:
    """Let the audio encoder of a Qwen3-ASR or Qwen3-ForcedAligner model attend within its windows."""
    register()
    model.thinker.audio_tower.config._attn_implementation = WINDOWED_SDPA  # type: ignore[union-attr]
