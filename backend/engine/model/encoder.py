"""The audio encoder: the mel features of a whole batch to audio tokens in one call, on any device.

Convolutions, transformer layers (pre-norm, windowed attention, GELU) and a projection to the decoder's width. The
arithmetic is that of Qwen's package (test_encoder.py compares both). The shape of the work is ours:

- GELU is part of a convolution or a linear layer where oneDNN computes them. As an operation of its own it takes a
  fifth of the encoder's time on a CPU.
- The layout of the tokens follows from the clips' lengths, which the host knows: it is computed there and sent by one
  copy, and the encoder never waits for the device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import gelu, pad

from backend.checkpoint.model_config import EncoderConfig
from backend.engine.model.windowed_attention import (
    FlashWindows,
    PackedWindows,
    WindowedAttention,
    WindowRows,
    row_mask,
    rows_of,
)
from backend.engine.ops.device import onednn_supports
from backend.engine.ops.linear import PackedLinear
from backend.engine.ops.torch_private import onednn_conv2d
from backend.engine.ops.transfer import send, send_arrays

# Each block's activations take 3 MB; with more blocks in one call, fresh pages take a tenth of the convolutions' time.
_CPU_BLOCKS_PER_CALL = 4
# Chosen, not measured. Activations and GELU of 64 blocks take 0.4 GB, the package's 500 blocks 3 GB. cuDNN makes a plan
# for each number of blocks it has not seen, three times; of multiples of 16 up to 64 there are four.
_GPU_BLOCKS_PER_CALL = 64
_GPU_BLOCK_MULTIPLE = 16
_LONGEST_PERIOD = 10_000.0  # of the position embedding, in tokens, divided by 2 pi
_FLOAT16_LIMIT = torch.finfo(torch.float16).max - 1000  # as in the package: what is larger does not become infinite


class Encoder(nn.Module):
    """The encoder of a Qwen3-ASR or a Qwen3-ForcedAligner. To be placed before it computes.

    A block is what the convolutions see at once: 1 s of mel frames. A window is what the audio tokens attend to: the
    tokens of 8 s.
    """

    positions: torch.Tensor  # of the tokens of a block, (tokens, width)

    def __init__(self, config: EncoderConfig, attention: str = "sdpa") -> None:
        """`attention`: see ops/device.Placement."""
        super().__init__()
        self.config, self._attention = config, attention
        self._window_tokens = _token_count(config.block_frames) * (config.window_frames // config.block_frames)
        channels, width = config.channels, config.width
        self.conv2d1 = nn.Conv2d(1, channels, 3, 2, padding=1)
        self.conv2d2 = nn.Conv2d(channels, channels, 3, 2, padding=1)
        self.conv2d3 = nn.Conv2d(channels, channels, 3, 2, padding=1)
        self.conv_out = nn.Linear(channels * _token_count(config.mels), width, bias=False)
        self.layers = nn.ModuleList(_Layer(width, config.heads, config.ffn) for _ in range(config.layers))
        self.ln_post = nn.LayerNorm(width)
        self.proj1 = nn.Linear(width, width)
        self.proj2 = nn.Linear(width, config.output)

    def place(self, device: torch.device) -> None:
        """Once the weights are there: set what depends on the device that they are on."""
        on_cpu = device.type == "cpu"
        if on_cpu:  # in float32 the convolutions take two thirds of the time
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._blocks_per_call = min(_CPU_BLOCKS_PER_CALL if on_cpu else _GPU_BLOCKS_PER_CALL, self.config.most_blocks)
        self._block_multiple = 1 if on_cpu else _GPU_BLOCK_MULTIPLE
        # padding costs a CPU more than calls do, and flash-attn takes packed windows only
        self._in_rows = not on_cpu and self._attention != "flash_attention_2"
        positions = _position_embedding(_token_count(self.config.block_frames), self.config.width)
        self.register_buffer("positions", positions.to(device), persistent=False)
        for layer in self.layers:
            if isinstance(layer.fc1, PackedLinear):
                layer.fc1.activation = "gelu"

    def forward(self, input_features: torch.Tensor, frames: Sequence[int]) -> torch.Tensor:
        """Encode clips that stand one after the other.

        input_features: mel features of all clips, (mels, frames), on any device; `frames`: of each clip, at least 1.
        Returns the audio tokens of all clips, one clip after the other, (tokens, output).
        """
        weight = self.conv2d1.weight
        columns, tokens = self._blocks(frames)
        windows = self._windows(frames)
        features = send(input_features, weight.device, weight.dtype)
        attend: WindowedAttention
        if self._in_rows:
            rows = rows_of(windows)
            of_blocks, of_rows, places, queries, keys = send_arrays(
                weight.device, columns, tokens[rows.tokens.ravel()], rows.places, rows.queries, rows.keys
            )
            hidden = self._convolve(features, of_blocks)[of_rows]
            attend = WindowRows(row_mask(queries, keys, hidden.dtype))
            hidden = self._run_layers(hidden, attend)[places]
        else:
            ends = np.array([0, *accumulate(windows)])
            of_blocks, packed, on_device = send_arrays(weight.device, columns, tokens, ends)
            is_flash = self._attention == "flash_attention_2"
            attend = FlashWindows(on_device.int(), max(windows)) if is_flash else PackedWindows(windows)
            hidden = self._run_layers(self._convolve(features, of_blocks)[packed], attend)
        encoded: torch.Tensor = self.proj2(gelu(self.proj1(self.ln_post(hidden))))
        return encoded

    def token_count(self, frames: int) -> int:
        """Audio tokens of a clip with so many mel frames."""
        blocks, rest = divmod(frames, self.config.block_frames)
        tokens: int = blocks * _token_count(self.config.block_frames) + _token_count(rest)
        return tokens

    def _blocks(self, frames: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The frames that each block takes, (blocks, frames of the longest), and the audio tokens' numbers among all
        outputs of the blocks, (tokens,). Where a block has no frame, it takes the one behind the last.
        """
        ends = [*accumulate(frames)]
        bounds = [
            (start, min(start + self.config.block_frames, end))
            for count, end in zip(frames, ends, strict=True)
            for start in range(end - count, end, self.config.block_frames)
        ]
        bounds += [(0, 0)] * (-len(bounds) % self._block_multiple)
        starts, stops = np.array(bounds).T[:, :, None]
        columns = starts + np.arange((stops - starts).max())
        is_token = np.arange(_token_count(columns.shape[1])) < _token_count(stops - starts)
        return np.where(columns < stops, columns, ends[-1]), np.flatnonzero(is_token)

    def _windows(self, frames: Sequence[int]) -> list[int]:
        """The tokens of all windows. A window lies within one clip, so the clips do not attend to each other."""
        size = self._window_tokens
        clips = map(self.token_count, frames)
        return [min(size, tokens - start) for tokens in clips for start in range(0, tokens, size)]

    def _convolve(self, features: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """(mels, frames) and the frames of each block -> the outputs of all blocks, (blocks × tokens, width)."""
        blocks = pad(features.T, (0, 0, 0, 1))[columns].transpose(1, 2).unsqueeze(1)
        # a few blocks at a time: the activations between the convolutions are large
        convolved = torch.cat([self._convolve_blocks(some) for some in torch.split(blocks, self._blocks_per_call)])
        tokens: torch.Tensor = self.conv_out(convolved.permute(0, 3, 1, 2).flatten(2))
        return (tokens + self.positions[: tokens.shape[1]].to(tokens.dtype)).flatten(0, 1)

    def _convolve_blocks(self, blocks: torch.Tensor) -> torch.Tensor:
        """(blocks, 1, mels, frames) -> (blocks, channels, mels / 8, frames / 8)."""
        for convolution in (self.conv2d1, self.conv2d2, self.conv2d3):
            blocks = _conv_gelu(convolution, blocks)
        return blocks

    def _run_layers(self, hidden: torch.Tensor, attend: WindowedAttention) -> torch.Tensor:
        """(tokens, width) through all layers."""
        for layer in self.layers:
            hidden = layer(hidden, attend)
        return hidden


class _Layer(nn.Module):
    """LayerNorm and attention, LayerNorm and MLP, each half with a residual connection."""

    def __init__(self, width: int, heads: int, ffn: int) -> None:
        super().__init__()
        self.self_attn = _Attention(width, heads)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1: nn.Module = nn.Linear(width, ffn)  # or a PackedLinear
        self.fc2 = nn.Linear(ffn, width)
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, hidden: torch.Tensor, attend: WindowedAttention) -> torch.Tensor:
        hidden = hidden + self.self_attn(self.self_attn_layer_norm(hidden), attend)
        inner = self.fc1(self.final_layer_norm(hidden))
        hidden = hidden + self.fc2(inner if isinstance(self.fc1, PackedLinear) else gelu(inner))  # see Encoder.place
        if hidden.dtype is torch.float16:
            hidden = hidden.clamp(-_FLOAT16_LIMIT, _FLOAT16_LIMIT)
        return hidden


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, hidden: torch.Tensor, attend: WindowedAttention) -> torch.Tensor:
        projected = (projection(hidden) for projection in (self.q_proj, self.k_proj, self.v_proj))
        query, key, value = (each.view(len(hidden), self._heads, -1) for each in projected)
        attended: torch.Tensor = self.out_proj(attend(query, key, value).flatten(1))
        return attended


def _position_embedding(positions: int, width: int) -> torch.Tensor:
    """Sines, then cosines of position × frequency, (positions, width) in float32."""
    step = math.log(_LONGEST_PERIOD) / (width // 2 - 1)
    frequencies = torch.exp(-step * torch.arange(width // 2, dtype=torch.float32))
    angles = torch.arange(positions)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _token_count(frames: Any) -> Any:
    """Tokens that three convolutions of stride 2 make of so many frames."""
    return -(-frames // 8)


def _conv_gelu(convolution: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    if not onednn_supports(convolution.weight):
        return gelu(convolution(x))
    return onednn_conv2d(x, convolution, "gelu")
