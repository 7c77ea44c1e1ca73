"""The audio encoder: the mel features of a whole batch to audio tokens in one call, on any device.

The transformer layers are the package's. The convolutions before them are run here, because oneDNN can compute GELU as
part of a convolution or a linear layer, and the package's code has no place for that. On a CPU, GELU as an operation of
its own takes a fifth of the encoder's time.
"""

from __future__ import annotations

from itertools import accumulate, chain
from typing import Any

import torch
from torch import nn
from torch.nn.functional import gelu
from torch.nn.utils.rnn import pad_sequence

from backend.engine.ops.device import onednn_supports
from backend.engine.ops.linear import PackedLinear
from backend.engine.ops.torch_private import onednn_conv2d

# Each block's activations take 3 MB; with more blocks in one call, fresh pages take a tenth of the convolutions' time.
_CPU_BLOCKS_PER_CALL = 4


class Encoder(nn.Module):
    """Replaces the `audio_tower` of a Qwen3-ASR or a Qwen3-ForcedAligner, and holds it with its weights.

    A block is what the convolutions see at once: 1 s of mel frames. A window is what the audio tokens attend to: the
    tokens of 8 s.
    """

    def __init__(self, tower: Any) -> None:
        super().__init__()
        self.tower = tower
        self._block_frames: int = 2 * tower.n_window
        self._blocks_per_call = tower.conv_chunksize
        self._window_tokens = _token_count(self._block_frames) * (tower.n_window_infer // self._block_frames)
        if tower.conv2d1.weight.device.type == "cpu":
            tower.to(memory_format=torch.channels_last)  # in float32 the convolutions take two thirds of the time
            self._blocks_per_call = min(_CPU_BLOCKS_PER_CALL, self._blocks_per_call)
        for layer in tower.layers if tower.config.activation_function == "gelu" else ():
            if isinstance(layer.fc1, PackedLinear):
                layer.fc1.activation = "gelu"
                layer.activation_fn = nn.Identity()

    def forward(self, input_features: torch.Tensor, feature_lens: torch.Tensor) -> torch.Tensor:
        """Encode clips that stand one after the other.

        input_features: mel features of all clips, (mels, frames); feature_lens: frames of each clip, (clips,).
        Returns the audio tokens of all clips, one clip after the other, (tokens, hidden).
        """
        tower = self.tower
        clips = torch.split(input_features, feature_lens.tolist(), dim=1)
        blocks = [torch.split(clip, self._block_frames, dim=1) for clip in clips]
        padded = pad_sequence([block.T for block in chain(*blocks)], batch_first=True).transpose(1, 2).unsqueeze(1)
        # a few blocks at a time: the activations between the convolutions are large
        features = torch.cat([self._convolve(some) for some in torch.split(padded, self._blocks_per_call)])
        tokens = tower.conv_out(features.permute(0, 3, 1, 2).flatten(2))
        tokens = tokens + tower.positional_embedding.positional_embedding[: tokens.shape[1]].to(tokens.dtype)
        counts = [[_token_count(block.shape[1]) for block in clip] for clip in blocks]
        hidden = torch.cat([row[:count] for row, count in zip(tokens, chain(*counts), strict=True)])
        window_ends = self._window_ends([sum(each) for each in counts]).to(hidden.device)
        for layer in tower.layers:
            hidden = layer(hidden, window_ends)[0]
        encoded: torch.Tensor = tower.proj2(tower.act(tower.proj1(tower.ln_post(hidden))))
        return encoded

    def token_count(self, frames: int) -> int:
        """Audio tokens of a clip with so many mel frames."""
        blocks, rest = divmod(frames, self._block_frames)
        return blocks * _token_count(self._block_frames) + _token_count(rest)

    def _convolve(self, blocks: torch.Tensor) -> torch.Tensor:
        """(blocks, 1, mels, frames) -> (blocks, channels, mels / 8, frames / 8)."""
        for convolution in (self.tower.conv2d1, self.tower.conv2d2, self.tower.conv2d3):
            blocks = _conv_gelu(convolution, blocks)
        return blocks

    def _window_ends(self, clip_tokens: list[int]) -> torch.Tensor:
        """The cumulative ends of all windows, from 0 on: (windows + 1,). `clip_tokens`: tokens of each clip.

        A window lies within one clip, so the clips of a batch do not attend to each other.
        """
        size = self._window_tokens
        windows = [min(size, tokens - start) for tokens in clip_tokens for start in range(0, tokens, size)]
        return torch.tensor([0, *accumulate(windows)], dtype=torch.int32)


def _token_count(frames: int) -> int:
    """Tokens that three convolutions of stride 2 make of so many frames."""
    return -(-frames // 8)


def _conv_gelu(convolution: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    if not onednn_supports(convolution.weight):
        return gelu(convolution(x))
    return onednn_conv2d(x, convolution, "gelu")
