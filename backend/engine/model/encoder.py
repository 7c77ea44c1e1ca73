"""The audio encoder for a whole batch in one call, on any device.

Its layers are the package's. Ours is what stands before them, because there the package leaves no place for the
activation inside the products: on CPUs, where oneDNN has both in one operation, GELU by itself takes a fifth of the
encoder's time.
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

_CPU_CONVOLVES = 4  # pieces at once: 3 MB come between, each, and fresh pages take a tenth of the convolutions' time


class Encoder(nn.Module):
    """Takes the place of a Qwen3-ASR's or an aligner's `audio_tower`, which it is given with its weights."""

    def __init__(self, tower: Any) -> None:
        super().__init__()
        self.tower = tower
        self._piece = 2 * tower.n_window  # frames that the convolutions see together, a second
        self._convolved_at_once = tower.conv_chunksize  # pieces
        self._window = _tokens(self._piece) * (tower.n_window_infer // self._piece)  # tokens that attend to each other
        if tower.conv2d1.weight.device.type == "cpu":
            tower.to(memory_format=torch.channels_last)  # in float32 the convolutions take two thirds of the time
            self._convolved_at_once = min(_CPU_CONVOLVES, self._convolved_at_once)
        for layer in tower.layers if tower.config.activation_function == "gelu" else ():
            if isinstance(layer.fc1, PackedLinear):
                layer.fc1.activation = "gelu"
                layer.activation_fn = nn.Identity()

    def forward(self, input_features: torch.Tensor, feature_lens: torch.Tensor) -> torch.Tensor:
        """Mel features of clips side by side, (mels, frames), and how many frames each has, (clips,).

        Gives the tokens of all clips, one after the other, (tokens, hidden).
        """
        tower = self.tower
        clips = [
            torch.split(clip, self._piece, dim=1) for clip in torch.split(input_features, feature_lens.tolist(), dim=1)
        ]
        padded = pad_sequence([piece.T for piece in chain(*clips)], batch_first=True).transpose(1, 2).unsqueeze(1)
        # not all at once: what comes between the convolutions is large
        heard = torch.cat([self._convolved(some) for some in torch.split(padded, self._convolved_at_once)])
        tokens = tower.conv_out(heard.permute(0, 3, 1, 2).flatten(2))
        tokens = tokens + tower.positional_embedding.positional_embedding[: tokens.shape[1]].to(tokens.dtype)
        counts = [[_tokens(piece.shape[1]) for piece in clip] for clip in clips]
        hidden = torch.cat([row[:count] for row, count in zip(tokens, chain(*counts), strict=True)])
        ends = self._ends([sum(each) for each in counts]).to(hidden.device)
        for layer in tower.layers:
            hidden = layer(hidden, ends)[0]
        given: torch.Tensor = tower.proj2(tower.act(tower.proj1(tower.ln_post(hidden))))
        return given

    def _convolved(self, pieces: torch.Tensor) -> torch.Tensor:
        """(pieces, 1, mels, frames) -> (pieces, channels, mels / 8, frames / 8)."""
        for convolution in (self.tower.conv2d1, self.tower.conv2d2, self.tower.conv2d3):
            pieces = _with_gelu(convolution, pieces)
        return pieces

    def _ends(self, clips: list[int]) -> torch.Tensor:
        """Where windows end, and 0 before them: (windows + 1,). `clips`: how many tokens each has."""
        windows = [min(self._window, tokens - at) for tokens in clips for at in range(0, tokens, self._window)]
        return torch.tensor([0, *accumulate(windows)], dtype=torch.int32)


def _tokens(frames: int) -> int:
    """What is left of so many frames by three convolutions of stride 2."""
    return -(-frames // 8)


def _with_gelu(convolution: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    if not onednn_supports(convolution.weight):
        return gelu(convolution(x))
    return onednn_conv2d(x, convolution, "gelu")
