"""The modules of a Qwen3-ASR or Qwen3-ForcedAligner: the encoder, and the decoder's weights.

Modules hold the weights under the names that the checkpoint's files give them (`thinker.model.layers.0…`), which is all
that the decoder's do: decoder.py computes with what they hold. The encoder computes by itself.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from backend.checkpoint.model_config import DecoderConfig, ModelConfig
from backend.engine.model.encoder import Encoder
from backend.engine.ops.device import Placement


class QwenModel(nn.Module):
    """A model without weights: its parameters are on torch's `meta` device, whatever `placement` says.

    `device` and `dtype`: those in which it will compute.
    """

    def __init__(self, config: ModelConfig, placement: Placement) -> None:
        super().__init__()
        self.config, self.device, self.dtype = config, placement.device, placement.dtype
        with torch.device("meta"):
            self.thinker = _holding(
                audio_tower=Encoder(config.encoder, placement.attention),
                model=_text_model(config.decoder),
                lm_head=nn.Linear(config.decoder.hidden, config.classes or config.decoder.vocab_size, bias=False),
            )
        if config.decoder.tied:
            self.thinker.lm_head.weight = self.thinker.model.embed_tokens.weight


def _holding(**parts: nn.Module) -> Any:
    """An nn.Module that has these parts and computes nothing."""
    module = nn.Module()
    for name, part in parts.items():
        module.add_module(name, part)
    return module


def _text_model(config: DecoderConfig) -> Any:
    weight = torch.empty(config.vocab_size, config.hidden)
    return _holding(
        # an Embedding that fills its own weight on meta makes torch import its compiler, which takes half a second
        embed_tokens=nn.Embedding(config.vocab_size, config.hidden, _weight=weight),
        layers=nn.ModuleList(_text_layer(config) for _ in range(config.layers)),
        norm=nn.RMSNorm(config.hidden),
    )


def _text_layer(config: DecoderConfig) -> Any:
    hidden, queries, keys = config.hidden, config.heads * config.head_size, config.kv_heads * config.head_size
    return _holding(
        self_attn=_holding(
            q_proj=nn.Linear(hidden, queries, config.bias),
            k_proj=nn.Linear(hidden, keys, config.bias),
            v_proj=nn.Linear(hidden, keys, config.bias),
            o_proj=nn.Linear(queries, hidden, config.bias),
            q_norm=nn.RMSNorm(config.head_size),
            k_norm=nn.RMSNorm(config.head_size),
        ),
        mlp=_holding(
            gate_proj=nn.Linear(hidden, config.ffn, bias=False),
            up_proj=nn.Linear(hidden, config.ffn, bias=False),
            down_proj=nn.Linear(config.ffn, hidden, bias=False),
        ),
        input_layernorm=nn.RMSNorm(hidden),
        post_attention_layernorm=nn.RMSNorm(hidden),
    )
