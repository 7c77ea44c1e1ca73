"""The audio encoder: the mel features of a whole batch to audio tokens in one call, on any device.

The transformer layers are the package's. What is around them is ours:

- The convolutions, because oneDNN can compute GELU as part of a convolution or a linear layer, and the package's code
  has no place for that. On a CPU, GELU as an operation of its own takes a fifth of the encoder's time.
- The layout of the tokens. It follows from the clips' lengths, which the host knows: it is computed there and sent by
  one copy, and the encoder never waits for the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import gelu, pad

from backend.engine.model.windowed_attention import row_mask, rows_of
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


class Encoder(nn.Module):
    """Replaces the `audio_tower` of a Qwen3-ASR or a Qwen3-ForcedAligner, and holds it with its weights.

    A block is what the convolutions see at once: 1 s of mel frames. A window is what the audio tokens attend to: the
    tokens of 8 s.
    """

    def __init__(self, tower: Any) -> None:
        super().__init__()
        self.tower = tower
        self._block_frames = 2 * tower.n_window
        self._window_tokens = _token_count(self._block_frames) * (tower.n_window_infer // self._block_frames)
        on_cpu = tower.conv2d1.weight.device.type == "cpu"
        if on_cpu:
            tower.to(memory_format=torch.channels_last)  # in float32 the convolutions take two thirds of the time
        self._blocks_per_call = min(_CPU_BLOCKS_PER_CALL if on_cpu else _GPU_BLOCKS_PER_CALL, tower.conv_chunksize)
        self._block_multiple = 1 if on_cpu else _GPU_BLOCK_MULTIPLE
        # padding costs a CPU more than calls do, and flash-attn takes packed windows only
        self._in_rows = not on_cpu and tower.config._attn_implementation != "flash_attention_2"
        for layer in tower.layers if tower.config.activation_function == "gelu" else ():
            if isinstance(layer.fc1, PackedLinear):
                layer.fc1.activation = "gelu"
                layer.activation_fn = nn.Identity()

    def forward(self, input_features: torch.Tensor, frames: Sequence[int]) -> torch.Tensor:
        """Encode clips that stand one after the other.

        input_features: mel features of all clips, (mels, frames), on any device; `frames`: of each clip, at least 1.
        Returns the audio tokens of all clips, one clip after the other, (tokens, hidden).
        """
        tower, weight = self.tower, self.tower.conv2d1.weight
        columns, tokens = self._blocks(frames)
        windows = self._windows(frames)
        ends = np.array([0, *accumulate(windows)])
        features = send(input_features, weight.device, weight.dtype)
        if self._in_rows:
            rows = rows_of(windows)
            of_blocks, of_rows, places, queries, keys = send_arrays(
                weight.device, columns, tokens[rows.tokens.ravel()], rows.places, rows.queries, rows.keys
            )
            hidden = self._convolve(features, of_blocks)[of_rows]
            mask = row_mask(queries, keys, hidden.dtype)
            hidden = self._run_layers(hidden, torch.from_numpy(ends), mask)[places]
        else:
            of_blocks, packed, on_device = send_arrays(weight.device, columns, tokens, ends)
            hidden = self._run_layers(self._convolve(features, of_blocks)[packed], on_device.int())
        encoded: torch.Tensor = tower.proj2(tower.act(tower.proj1(tower.ln_post(hidden))))
        return encoded

    def token_count(self, frames: int) -> int:
        """Audio tokens of a clip with so many mel frames."""
        blocks, rest = divmod(frames, self._block_frames)
        tokens: int = blocks * _token_count(self._block_frames) + _token_count(rest)
        return tokens

    def _blocks(self, frames: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The frames that each block takes, (blocks, frames of the longest), and the audio tokens' numbers among all
        outputs of the blocks, (tokens,). Where a block has no frame, it takes the one behind the last.
        """
        ends = [*accumulate(frames)]
        bounds = [
            (start, min(start + self._block_frames, end))
            for count, end in zip(frames, ends, strict=True)
            for start in range(end - count, end, self._block_frames)
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
        tower = self.tower
        blocks = pad(features.T, (0, 0, 0, 1))[columns].transpose(1, 2).unsqueeze(1)
        # a few blocks at a time: the activations between the convolutions are large
        convolved = torch.cat([self._convolve_blocks(some) for some in torch.split(blocks, self._blocks_per_call)])
        tokens: torch.Tensor = tower.conv_out(convolved.permute(0, 3, 1, 2).flatten(2))
        positions: torch.Tensor = tower.positional_embedding.positional_embedding[: tokens.shape[1]]
        return (tokens + positions.to(tokens.dtype)).flatten(0, 1)

    def _convolve_blocks(self, blocks: torch.Tensor) -> torch.Tensor:
        """(blocks, 1, mels, frames) -> (blocks, channels, mels / 8, frames / 8)."""
        for convolution in (self.tower.conv2d1, self.tower.conv2d2, self.tower.conv2d3):
            blocks = _conv_gelu(convolution, blocks)
        return blocks

    def _run_layers(
        self, hidden: torch.Tensor, window_ends: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(tokens, width) through all layers; `window_ends` and `mask`: see `windowed_sdpa`."""
        for layer in self.tower.layers:
            hidden = layer(hidden, window_ends, attention_mask=mask)[0]
        return hidden


def _token_count(frames: Any) -> Any:
    """Tokens that three convolutions of stride 2 make of so many frames."""
    return -(-frames // 8)


def _conv_gelu(convolution: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    if not onednn_supports(convolution.weight):
        return gelu(convolution(x))
    return onednn_conv2d(x, convolution, "gelu")
