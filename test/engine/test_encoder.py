"""The encoder against the package's own, of which it takes the place."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from backend.engine import encoder, linear
from backend.engine.device import choose
from backend.engine.encoder import Encoder
from backend.engine.linear import Packed, pack_within
from backend.engine.loading import _recognizer_of
from backend.engine.qwen import load
from backend.options import LoadOptions


def encoder_of(options: LoadOptions) -> Any:
    loaded = load(_recognizer_of(options), choose(options))
    loaded.weights.fill([loaded.model])
    loaded.weights.close()
    return Encoder(loaded.model.thinker.audio_tower)


def both(options: LoadOptions, *frames: int) -> tuple[torch.Tensor, torch.Tensor, Encoder]:
    """What the package's tower and ours, settled, give of noise in clips of so many frames."""
    ours = encoder_of(options)
    torch.manual_seed(1)
    mels, lengths = torch.randn(128, sum(frames)).to(ours.tower.dtype), torch.tensor(frames)
    with torch.inference_mode():
        wanted = ours.tower(mels, feature_lens=lengths).last_hidden_state
        pack_within(ours, lambda modules: None)
        ours.settle()
        return wanted, ours(mels, feature_lens=lengths).last_hidden_state, ours


@pytest.mark.parametrize(
    "frames", [(1,), (50,), (99,), (100,), (101,), (800,), (801,), (1999, 50, 800), (7, 100)], ids=str
)
def test_it_gives_what_the_package_gives(demo_options, frames: tuple[int, ...]) -> None:
    wanted, found, _ = both(demo_options, *frames)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_activations_are_within_the_products_where_onednn_computes(demo_options, dtype: str) -> None:
    wanted, found, ours = both(LoadOptions(demo_options.model, dtype=dtype), 1100, 250)
    fused = [layer for layer in ours.tower.layers if isinstance(layer.activation_fn, nn.Identity)]
    assert fused == [layer for layer in ours.tower.layers if isinstance(layer.fc1, Packed)]
    error = (found - wanted).abs().max() / wanted.abs().max()
    assert error < (1e-5 if dtype == "float32" else 0.03)


def test_without_onednn_it_gives_the_same(monkeypatch, demo_options) -> None:
    for module in (encoder, linear):
        monkeypatch.setattr(module, "onednn_takes", lambda numbers: False)
    wanted, found, ours = both(demo_options, 1100, 250)
    assert not any(isinstance(layer.activation_fn, nn.Identity) for layer in ours.tower.layers)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def test_another_activation_stays_where_it_is(demo_options) -> None:
    ours = encoder_of(demo_options)
    ours.tower.config.activation_function = "relu"
    pack_within(ours, lambda modules: None)
    ours.settle()
    assert not any(isinstance(layer.activation_fn, nn.Identity) for layer in ours.tower.layers)
    assert all(getattr(layer.fc1, "then", "none") == "none" for layer in ours.tower.layers)


@pytest.mark.parametrize(("by_config", "groups"), [(500, [4, 4]), (3, [3, 3, 2])])
def test_the_convolutions_see_a_few_pieces_at_once(demo_options, monkeypatch, by_config: int, groups) -> None:
    package = encoder_of(demo_options).tower
    package.conv_chunksize = by_config
    ours = Encoder(package)
    ours.settle()
    seen: list[int] = []
    convolved = ours._convolved
    monkeypatch.setattr(ours, "_convolved", lambda pieces: seen.append(len(pieces)) or convolved(pieces))
    mels, lengths = torch.randn(128, 730), torch.tensor([730])
    with torch.inference_mode():
        found = ours(mels, feature_lens=lengths).last_hidden_state
        assert seen == groups
        ours._convolved_at_once = 500
        torch.testing.assert_close(found, ours(mels, feature_lens=lengths).last_hidden_state, atol=1e-5, rtol=1e-4)
    assert seen == [*groups, 8]
