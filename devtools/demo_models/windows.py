"""The backend's windowed attention for the package's own model, by which demo models are trained and tests compare.

The package computes the windows' ends and hands them to the attention function that its config names; only flash-attn
uses them there.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from backend.engine.model.windowed_attention import PackedWindows

WINDOWED_SDPA = "windowed_sdpa"


def windowed_sdpa(
    _module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    cu_seq_lens_q: torch.Tensor,
    **_unused: Any,
) -> tuple[torch.Tensor, None]:
    """An attention function of transformers. query, key, value: (1, heads, tokens, head size); `cu_seq_lens_q` (windows
    + 1,): cumulative ends, from 0 on. Returns (1, tokens, heads, head size).
    """
    attend = PackedWindows(cu_seq_lens_q.diff().tolist())
    packed = (each[0].transpose(0, 1) for each in (query, key, value))
    return attend(*packed)[None], None


def use_windows(model: Any) -> None:
    """Let the audio encoder of the package's model attend within its windows."""
    ALL_ATTENTION_FUNCTIONS.register(WINDOWED_SDPA, windowed_sdpa)
    model.thinker.audio_tower.config._attn_implementation = WINDOWED_SDPA
