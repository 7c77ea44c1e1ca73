"""The encoder against the package's own, which it replaces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from backend.engine.model import encoder
from backend.engine.model.encoder import Encoder
from backend.engine.ops import linear
from backend.engine.ops.linear import PackedLinear, pack_linears


def encoder_of(tower: Any) -> Encoder:
    pack_linears(tower, lambda modules: None)
    return Encoder(tower)


def both(tower: Any, *frames: int) -> tuple[torch.Tensor, torch.Tensor, Encoder]:
    """The output of the package's tower, then of ours, for noise in clips of so many frames; and our encoder."""
    torch.manual_seed(1)
    mels, lengths = torch.randn(128, sum(frames)).to(tower.dtype), torch.tensor(frames)
    with torch.inference_mode():
        wanted = tower(mels, feature_lens=lengths).last_hidden_state
        ours = encoder_of(tower)
        return wanted, ours(mels, lengths), ours


@pytest.fixture
def tower_of(package_of, asr_folder: Path) -> Callable[..., Any]:
    return lambda *dtype: package_of(asr_folder, *dtype).thinker.audio_tower


@pytest.mark.parametrize(
    "frames", [(1,), (50,), (99,), (100,), (101,), (800,), (801,), (1999, 50, 800), (7, 100)], ids=str
)
def test_it_computes_what_the_package_computes(tower_of, frames: tuple[int, ...]) -> None:
    wanted, found, _ = both(tower_of(), *frames)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_activations_are_fused_into_the_products_where_onednn_computes(tower_of, dtype: str) -> None:
    wanted, found, ours = both(tower_of(dtype), 1100, 250)
    fused = [layer for layer in ours.tower.layers if isinstance(layer.activation_fn, nn.Identity)]
    assert fused == [layer for layer in ours.tower.layers if isinstance(layer.fc1, PackedLinear)]
    error = (found - wanted).abs().max() / wanted.abs().max()
    assert error < (1e-5 if dtype == "float32" else 0.03)


def test_without_onednn_it_computes_the_same(monkeypatch, tower_of) -> None:
    for module in (encoder, linear):
        monkeypatch.setattr(module, "onednn_supports", lambda numbers: False)
    wanted, found, ours = both(tower_of(), 1100, 250)
    assert not any(isinstance(layer.activation_fn, nn.Identity) for layer in ours.tower.layers)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def test_another_activation_is_not_fused(tower_of) -> None:
    package = tower_of()
    package.config.activation_function = "relu"
    ours = encoder_of(package)
    assert not any(isinstance(layer.activation_fn, nn.Identity) for layer in ours.tower.layers)
    assert all(getattr(layer.fc1, "then", "none") == "none" for layer in ours.tower.layers)


@pytest.mark.parametrize(("by_config", "groups"), [(500, [4, 4]), (3, [3, 3, 2])])
def test_the_convolutions_take_a_few_blocks_at_once(tower_of, monkeypatch, by_config: int, groups) -> None:
    package = tower_of()
    package.conv_chunksize = by_config
    ours = Encoder(package)
    seen: list[int] = []
    convolve = ours._convolve

    def recording_convolve(blocks):
        seen.append(len(blocks))
        return convolve(blocks)

    monkeypatch.setattr(ours, "_convolve", recording_convolve)
    mels, lengths = torch.randn(128, 730), torch.tensor([730])
    with torch.inference_mode():
        found = ours(mels, lengths)
        assert seen == groups
        ours._blocks_per_call = 500
        torch.testing.assert_close(found, ours(mels, lengths), atol=1e-5, rtol=1e-4)
    assert seen == [*groups, 8]
