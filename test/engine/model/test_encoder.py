"""The encoder against the package's own, of which it takes the place."""

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
    """What the package's tower and then ours give of noise in clips of so many frames."""
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
def test_it_gives_what_the_package_gives(tower_of, frames: tuple[int, ...]) -> None:
    wanted, found, _ = both(tower_of(), *frames)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_activations_are_within_the_products_where_onednn_computes(tower_of, dtype: str) -> None:
    wanted, found, ours = both(tower_of(dtype), 1100, 250)
    fused = [layer for layer in ours.tower.layers if isinstance(layer.activation_fn, nn.Identity)]
    assert fused == [layer for layer in ours.tower.layers if isinstance(layer.fc1, PackedLinear)]
    error = (found - wanted).abs().max() / wanted.abs().max()
    assert error < (1e-5 if dtype == "float32" else 0.03)


def test_without_onednn_it_gives_the_same(monkeypatch, tower_of) -> None:
    for module in (encoder, linear):
        monkeypatch.setattr(module, "onednn_supports", lambda numbers: False)
    wanted, found, ours = both(tower_of(), 1100, 250)
    assert not any(isinstance(layer.activation_fn, nn.Identity) for layer in ours.tower.layers)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def test_another_activation_stays_where_it_is(tower_of) -> None:
    package = tower_of()
    package.config.activation_function = "relu"
    ours = encoder_of(package)
    assert not any(isinstance(layer.activation_fn, nn.Identity) for layer in ours.tower.layers)
    assert all(getattr(layer.fc1, "then", "none") == "none" for layer in ours.tower.layers)


@pytest.mark.parametrize(("by_config", "groups"), [(500, [4, 4]), (3, [3, 3, 2])])
def test_the_convolutions_see_a_few_pieces_at_once(tower_of, monkeypatch, by_config: int, groups) -> None:
    package = tower_of()
    package.conv_chunksize = by_config
    ours = Encoder(package)
    seen: list[int] = []
    convolved = ours._convolved
    monkeypatch.setattr(ours, "_convolved", lambda pieces: seen.append(len(pieces)) or convolved(pieces))
    mels, lengths = torch.randn(128, 730), torch.tensor([730])
    with torch.inference_mode():
        found = ours(mels, lengths)
        assert seen == groups
        ours._convolved_at_once = 500
        torch.testing.assert_close(found, ours(mels, lengths), atol=1e-5, rtol=1e-4)
    assert seen == [*groups, 8]
