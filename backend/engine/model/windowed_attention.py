"""Attention inside the audio encoder's windows, on any device.

Qwen3-ASR's encoder was trained with attention in windows of 8 s that do not see each other. The package computes
the windows' bounds (`cu_seqlens`) but only flash-attn reads them; its sdpa and eager paths attend over the whole
clip instead, which is quadratic and, beyond 8 s, not what the model learned (QwenLM/Qwen3-ASR issue 213).
This function reads them: as rows of our own kernel (prefill_attention.py), or as a padded batch that attends at once.
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
    """Attention of packed windows, each alone.

    query, key, value: (1, heads, tokens, head_dim); cu_seq_lens_q: (windows + 1,) cumulative window ends, from 0.
    Returns (1, tokens, heads, head_dim), as transformers expects of an attention function.
    """
    if can_attend(query):
        bounds = cu_seq_lens_q.to(torch.int64)
        held = bounds[:-1] * key.stride(2)
        return prefill_attention(query[0].transpose(0, 1), key[0], value[0], bounds, held, scaling, causal=False)[
            None
        ], None
    ends = cu_seq_lens_q.tolist()
    lengths = [end - start for start, end in pairwise(ends)]
    packed = torch.stack([query[0], key[0], value[0]]).permute(2, 0, 1, 3)  # tokens, qkv, heads, head_dim
    windows = pad_sequence(
        list(torch.split(packed, lengths)), batch_first=True
    )  # windows, longest, qkv, heads, head_dim
    q, k, v = windows.permute(2, 0, 3, 1, 4)
    # True where a token stands: (windows, longest)
    real = torch.arange(windows.shape[1], device=query.device) < torch.tensor(lengths, device=query.device)[:, None]
    mask = None if bool(real.all()) else real[:, None, None, :]
    answers = scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, scale=scaling)
    return answers.transpose(1, 2)[real].unsqueeze(0), None


def register() -> None:
    """Make the function known to transformers as `windowed_sdpa`. Idempotent."""
    ALL_ATTENTION_FUNCTIONS.register(WINDOWED_SDPA, windowed_sdpa)


def use_windows(model: torch.nn.Module) -> None:
    """Let the audio encoder of a Qwen3-ASR or Qwen3-ForcedAligner model attend inside its windows."""
    register()
    model.thinker.audio_tower.config._attn_implementation = WINDOWED_SDPA  # type: ignore[union-attr]
