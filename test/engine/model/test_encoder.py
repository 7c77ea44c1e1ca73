"""The encoder against the package's own, which it replaces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from backend.checkpoint.model_config import EncoderConfig, model_config
from backend.engine.model import encoder, windowed_attention
from backend.engine.model.encoder import Encoder
from backend.engine.ops import linear
from backend.engine.ops.device import onednn_supports
from backend.engine.ops.linear import PackedLinear, pack_linears


def weighted(tower: Any) -> Encoder:
    """Our encoder with the weights of the package's, to be placed."""
    ours = Encoder(config_of(tower)).to(next(tower.parameters()).dtype).requires_grad_(False)
    ours.load_state_dict(tower.state_dict())
    return ours


def encoder_of(tower: Any) -> Encoder:
    ours = weighted(tower)
    pack_linears(ours, lambda modules: None)
    ours.place(torch.device("cpu"))
    return ours


def gpu_encoder_of(tower: Any) -> Encoder:
    """As an Encoder is on a GPU: unpacked weights, windows in rows, more blocks in a call."""
    on_meta, ours = Encoder(config_of(tower)), weighted(tower)
    on_meta.place(torch.device("meta"))
    ours.place(torch.device("cpu"))
    vars(ours).update({name: value for name, value in vars(on_meta).items() if name not in vars(nn.Module())})
    return ours


def config_of(tower: Any) -> EncoderConfig:
    thinker = {"audio_config": tower.config.to_dict(), "text_config": {}, "audio_token_id": 0}
    config = model_config({"thinker_config": thinker}, "recognizer").encoder
    return replace(config, most_blocks=tower.conv_chunksize)


def noise(frames: Sequence[int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(128, sum(frames)).to(dtype)


def both(
    tower: Any, *frames: int, make: Callable[[Any], Encoder] = encoder_of
) -> tuple[torch.Tensor, torch.Tensor, Encoder]:
    """The output of the package's tower, then of ours, for noise in clips of so many frames; and our encoder."""
    mels = noise(frames, tower.dtype)
    with torch.inference_mode():
        wanted = tower(mels, feature_lens=torch.tensor(frames)).last_hidden_state
        ours = make(tower)
        return wanted, ours(mels, frames), ours


@pytest.fixture
def tower_of(package_of, asr_folder: Path) -> Callable[..., Any]:
    return lambda *dtype: package_of(asr_folder, *dtype).thinker.audio_tower


FRAMES = [(1,), (50,), (99,), (100,), (101,), (800,), (801,), (1999, 50, 800), (7, 100), (50, 801, 3000, 801, 1500)]
on_any_device = pytest.mark.parametrize("make", [encoder_of, gpu_encoder_of], ids=["as on a CPU", "as on a GPU"])


@on_any_device
@pytest.mark.parametrize("frames", FRAMES, ids=str)
def test_it_computes_what_the_package_computes(tower_of, frames: tuple[int, ...], make) -> None:
    wanted, found, _ = both(tower_of(), *frames, make=make)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


@on_any_device
def test_each_window_is_encoded_as_by_the_packages_own_attention_in_it_alone(tower_of, make) -> None:
    package, frames = tower_of(), (900, 100, 1600, 800)  # windows of 104, 13, 13, 104, 104 and 104 tokens
    windows = noise(frames).split([800, 100, 100, 800, 800, 800], dim=1)
    package.config._attn_implementation = "sdpa"
    with torch.inference_mode():
        alone = [package(mels, feature_lens=torch.tensor([mels.shape[1]])).last_hidden_state for mels in windows]
        found = make(package)(noise(frames), frames)
    torch.testing.assert_close(found, torch.cat(alone), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_windows_in_rows_are_as_exact_as_the_package_in_16_bits(tower_of, dtype: str) -> None:
    frames = (1999, 50, 800, 801)
    wanted = both(tower_of(), *frames)[0]
    package, found, _ = both(tower_of(dtype), *frames, make=gpu_encoder_of)
    errors = [float((each.float() - wanted).abs().max() / wanted.abs().max()) for each in (package, found)]
    assert errors[1] < max(1.5 * errors[0], 0.002)


def test_clips_that_share_a_row_do_not_change_each_other(tower_of) -> None:
    ours, frames = gpu_encoder_of(tower_of()), (100, 250, 150)
    mels = noise(frames)
    with torch.inference_mode():
        before = ours(mels, frames)
        mels[:, 100:350] *= 3
        after = ours(mels, frames)
    changed = slice(13, 13 + 33)
    assert torch.equal(after[:13], before[:13])
    assert torch.equal(after[13 + 33 :], before[13 + 33 :])
    assert not torch.allclose(after[changed], before[changed])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_activations_are_fused_into_the_products_where_onednn_computes(tower_of, dtype: str) -> None:
    wanted, found, ours = both(tower_of(dtype), 1100, 250)
    packed = [layer.fc1 for layer in ours.layers if isinstance(layer.fc1, PackedLinear)]
    assert len(packed) == (len(ours.layers) if onednn_supports(torch.empty(0, dtype=found.dtype)) else 0)
    assert {layer.activation for layer in packed} <= {"gelu"}
    error = (found - wanted).abs().max() / wanted.abs().max()
    assert error < (1e-5 if dtype == "float32" else 0.03)


def test_without_onednn_it_computes_the_same(monkeypatch, tower_of) -> None:
    for module in (encoder, linear):
        monkeypatch.setattr(module, "onednn_supports", lambda numbers: False)
    wanted, found, ours = both(tower_of(), 1100, 250)
    assert not any(isinstance(layer.fc1, PackedLinear) for layer in ours.layers)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "by_config", "frames", "groups"),
    [
        (encoder_of, 500, 730, [4, 4]),
        (encoder_of, 3, 730, [3, 3, 2]),
        (gpu_encoder_of, 500, 730, [16]),
        (gpu_encoder_of, 500, 1600, [16]),
        (gpu_encoder_of, 500, 6601, [64, 16]),
        (gpu_encoder_of, 12, 730, [12, 4]),
    ],
)
def test_the_convolutions_take_a_few_blocks_at_once_and_on_gpus_few_numbers_of_them(
    tower_of, monkeypatch, make, by_config: int, frames: int, groups: list[int]
) -> None:
    package = tower_of()
    package.conv_chunksize = by_config
    ours = make(package)
    seen: list[int] = []
    convolve = ours._convolve_blocks

    def recording_convolve(blocks):
        seen.append(len(blocks))
        return convolve(blocks)

    monkeypatch.setattr(ours, "_convolve_blocks", recording_convolve)
    with torch.inference_mode():
        found = ours(noise([frames]), [frames])
        assert seen == groups
        ours._blocks_per_call, ours._block_multiple = 500, 1
        torch.testing.assert_close(found, ours(noise([frames]), [frames]), atol=1e-5, rtol=1e-4)
    assert seen == [*groups, -(-frames // 100)]


class Launches(TorchDispatchMode):
    """Counts the operations that compute on the meta device, which stands for a GPU.

    Whatever needs a value from there is an error: it has none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        computes = not operation.is_view and operation._schema.name not in ("aten::_unsafe_view", "aten::empty")
        self.count += computes and any(isinstance(each, torch.Tensor) and each.is_meta for each in tree_leaves(result))
        return result


def efficient_attention(query, key, value, *, attn_mask, scale):
    """What CUDA computes sdpa with a mask by, in one kernel. On meta torch would take it apart."""
    attention = torch.ops.aten._scaled_dot_product_efficient_attention
    mask = attn_mask.expand(*query.shape[:2], -1, -1)
    return attention(query, key, value, mask, False, scale=scale)[0]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_on_a_gpu_it_never_waits_and_a_layer_launches_as_much_for_eight_clips_as_for_one(
    tower_of, monkeypatch, dtype: str
) -> None:
    monkeypatch.setattr(windowed_attention, "scaled_dot_product_attention", efficient_attention)
    ours, launches = weighted(tower_of(dtype)).to("meta"), Launches()
    ours.place(torch.device("meta"))
    counts: list[int] = []
    for layer in ours.layers:
        layer.register_forward_pre_hook(lambda *_: counts.append(-launches.count))
        layer.register_forward_hook(lambda *_: counts.append(launches.count))
    for frames, tokens in ([1500], 195), ([1500] * 8, 8 * 195), ([50, 800, 801, 3000, 1999], 7 + 104 + 105 + 390 + 260):
        launches.count = 0
        with torch.no_grad(), launches:
            encoded = ours(noise(frames), frames)
        assert encoded.shape[0] == tokens
        of_layers = {before + after for before, after in zip(counts[0::2], counts[1::2], strict=True)}
        # 2 LayerNorms, 6 linear layers, attention, an activation, 2 residuals; in float16 a clamp
        assert of_layers == {13 if dtype == "float16" else 12}
        assert launches.count - sum(counts) <= 40
        counts.clear()
