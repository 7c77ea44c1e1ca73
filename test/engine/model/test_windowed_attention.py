"""Windowed attention against sdpa with a dense block mask, and against sdpa of each window alone."""

from __future__ import annotations

from itertools import accumulate, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from backend.engine.model.windowed_attention import WINDOWED_SDPA, row_mask, rows_of, windowed_sdpa

WINDOW = 104  # audio tokens in 8 s


def bounds(tokens: int) -> list[int]:
    return [*range(0, tokens, WINDOW), tokens]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [1, 13, 103, 104, 105, 207, 208, 209, 312, 400])
@pytest.mark.parametrize("size", [16, 64], ids=["by torch", "in C, where that takes bf16"])
def test_it_equals_a_dense_block_mask_and_the_windows_alone(size: int, tokens: int, dtype: torch.dtype) -> None:
    torch.manual_seed(tokens)
    given = torch.randn(3, tokens, 4, size).to(dtype).transpose(1, 2)[:, None]  # as the encoder's layers give them
    q, k, v = given.float()
    ends = bounds(tokens)
    mask = torch.zeros(tokens, tokens, dtype=torch.bool)
    alone = []
    for begin, end in pairwise(ends):
        mask[begin:end, begin:end] = True
        of_window = [x[:, :, begin:end] for x in (q, k, v)]
        alone.append(scaled_dot_product_attention(of_window[0], of_window[1], of_window[2], scale=0.25))
    dense = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.25).transpose(1, 2)
    found, _ = windowed_sdpa(
        torch.nn.Identity(), *given, cu_seq_lens_q=torch.tensor(ends, dtype=torch.int32), scaling=0.25
    )
    assert found.shape == (1, tokens, 4, size)
    error = 1e-5 if dtype is torch.float32 else 0.02
    torch.testing.assert_close(found.float(), dense, atol=error, rtol=0)
    torch.testing.assert_close(found.float(), torch.cat(alone, dim=2).transpose(1, 2), atol=error, rtol=0)


def test_training_gets_gradients_in_bf16_too() -> None:
    """`make demo-models` trains through this function, and the C kernel computes no gradients."""
    q, k, v = (torch.randn(1, 2, 20, 64, dtype=torch.bfloat16, requires_grad=True) for _ in "qkv")
    found, _ = windowed_sdpa(torch.nn.Identity(), q, k, v, cu_seq_lens_q=torch.tensor([0, 13, 20]), scaling=0.125)
    found.float().square().sum().backward()
    assert all(each.grad is not None and bool(each.grad.any()) for each in (q, k, v))


def test_windows_do_not_see_each_other() -> None:
    q, k, v = torch.randn(3, 1, 2, 2 * WINDOW, 8)
    ends = torch.tensor([0, WINDOW, 2 * WINDOW])
    before, _ = windowed_sdpa(torch.nn.Identity(), q, k, v, cu_seq_lens_q=ends, scaling=1.0)
    k[:, :, WINDOW:] += 1
    v[:, :, WINDOW:] += 1
    after, _ = windowed_sdpa(torch.nn.Identity(), q, k, v, cu_seq_lens_q=ends, scaling=1.0)
    torch.testing.assert_close(before[:, :WINDOW], after[:, :WINDOW])
    assert not torch.allclose(before[:, WINDOW:], after[:, WINDOW:])


WINDOWS = st.lists(st.integers(1, WINDOW), min_size=1, max_size=40)


@given(WINDOWS)
def test_each_token_of_each_window_has_one_place_in_the_rows(windows: list[int]) -> None:
    rows = rows_of(windows)
    length = rows.tokens.shape[1]
    assert length % 8 == 0
    assert 0 <= length - max(windows) < 8
    tokens, queries, keys = rows.tokens.ravel(), rows.queries.ravel(), rows.keys.ravel()
    assert tokens[rows.places].tolist() == list(range(sum(windows)))
    assert keys[rows.places].tolist() == [window for window, count in enumerate(windows) for _ in range(count)]
    assert (keys >= 0).sum() == sum(windows)
    assert (queries[keys >= 0] == keys[keys >= 0]).all()
    padding = np.flatnonzero(keys < 0)
    assert (padding % length > 0).all()  # no row begins with padding
    assert (tokens[padding] == tokens[padding - 1]).all()
    assert (queries[padding] == queries[padding - 1]).all()


@given(WINDOWS)
def test_all_rows_but_one_are_more_than_half_full(windows: list[int]) -> None:
    in_rows = (rows_of(windows).keys >= 0).sum(axis=1)
    assert sum(in_rows <= max(windows) / 2) <= 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("windows", [[1], [7], [104, 1], [104, 104], [13, 104, 91, 60, 40, 4, 1, 1]], ids=str)
def test_in_rows_it_equals_the_windows_alone(windows: list[int], dtype: torch.dtype) -> None:
    torch.manual_seed(len(windows))
    packed = torch.randn(3, sum(windows), 4, 16).to(dtype)
    rows, ends = rows_of(windows), [0, *accumulate(windows)]
    q, k, v = packed.float().transpose(1, 2)[:, None]
    alone = [scaled_dot_product_attention(q[:, :, a:b], k[:, :, a:b], v[:, :, a:b]) for a, b in pairwise(ends)]
    mask = row_mask(torch.from_numpy(rows.queries), torch.from_numpy(rows.keys), dtype)
    q, k, v = packed[:, rows.tokens.ravel()].transpose(1, 2)[:, None]
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.MATH):
        with sdpa_kernel(backend):
            found, _ = windowed_sdpa(torch.nn.Identity(), q, k, v, mask, cu_seq_lens_q=torch.tensor(ends), scaling=0.25)
        assert found.isfinite().all()
        error = {torch.float32: 1e-5, torch.bfloat16: 0.02, torch.float16: 0.005}[dtype]
        wanted = torch.cat(alone, dim=2).transpose(1, 2)
        torch.testing.assert_close(found[:, rows.places].float(), wanted, atol=error, rtol=0)


def test_the_encoder_encodes_each_window_and_each_clip_of_a_packed_call_alone(recognizer) -> None:
    """Through the real encoder: 20 s at once = its windows of 8 s one by one; three clips packed = each alone."""
    tower = recognizer.model.thinker.audio_tower
    dtype = recognizer.model.dtype
    rng = np.random.default_rng(5)
    frames = [2000, 800, 730]
    mels = [torch.from_numpy(rng.normal(size=(128, n)).astype(np.float32)).to(dtype) for n in frames]

    def encode(*parts: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return tower(torch.cat(parts, dim=1), [part.shape[1] for part in parts])

    whole = encode(mels[0])
    pieces = torch.cat([encode(mels[0][:, i : i + 800]) for i in range(0, 2000, 800)])
    torch.testing.assert_close(whole, pieces, atol=1e-5, rtol=0)
    packed = encode(*mels)
    torch.testing.assert_close(packed, torch.cat([encode(mel) for mel in mels]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("frames", "same"), [(50, True), (799, True), (800, True), (801, False), (1600, False)])
def test_up_to_eight_seconds_it_is_the_packages_own_attention(recognizer, frames: int, same: bool) -> None:
    tower = recognizer.model.thinker.audio_tower.tower
    mel = torch.from_numpy(np.random.default_rng(frames).normal(size=(128, frames)).astype(np.float32))
    encoded = []
    for attention in ("sdpa", WINDOWED_SDPA):
        tower.config._attn_implementation = attention
        with torch.inference_mode():
            encoded.append(tower(mel, feature_lens=torch.tensor([frames])).last_hidden_state)
    first, second = encoded
    assert torch.allclose(first, second, atol=1e-5, rtol=0) is same
