"""Windowed attention against sdpa with a dense block mask, and against sdpa of each window alone."""

from __future__ import annotations

import sys
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from backend.engine.model.windowed_attention import FlashWindows, PackedWindows, WindowRows, row_mask, rows_of

WINDOW = 104  # audio tokens in 8 s


def windows_of(tokens: int) -> list[int]:
    return [WINDOW] * (tokens // WINDOW) + [tokens % WINDOW] * (tokens % WINDOW > 0)


def alone(windows: list[int], packed: torch.Tensor) -> torch.Tensor:
    """torch's attention of each window by itself. packed: queries, keys, values (3, tokens, heads, head size)."""
    q, k, v = packed.float().transpose(1, 2)[:, None]
    bounds = pairwise(np.cumsum([0, *windows]))
    found = [scaled_dot_product_attention(q[:, :, a:b], k[:, :, a:b], v[:, :, a:b]) for a, b in bounds]
    return torch.cat(found, dim=2)[0].transpose(0, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [1, 13, 103, 104, 105, 207, 208, 209, 312, 400])
@pytest.mark.parametrize("size", [16, 64], ids=["by torch", "in C, where that takes bf16"])
def test_it_equals_a_dense_block_mask_and_the_windows_alone(size: int, tokens: int, dtype: torch.dtype) -> None:
    torch.manual_seed(tokens)
    packed = torch.randn(3, tokens, 4, size).to(dtype)  # as the encoder's layers give them
    windows = windows_of(tokens)
    number = torch.arange(tokens) // WINDOW
    q, k, v = packed.float().transpose(1, 2)
    dense = scaled_dot_product_attention(q, k, v, attn_mask=number[:, None] == number).transpose(0, 1)
    found = PackedWindows(windows)(*packed)
    assert found.shape == (tokens, 4, size)
    error = 1e-5 if dtype is torch.float32 else 0.02
    torch.testing.assert_close(found.float(), dense, atol=error, rtol=0)
    torch.testing.assert_close(found.float(), alone(windows, packed), atol=error, rtol=0)


def test_training_gets_gradients_in_bf16_too() -> None:
    """`make demo-models` trains through it, and the C kernel computes no gradients."""
    q, k, v = (torch.randn(20, 2, 64, dtype=torch.bfloat16, requires_grad=True) for _ in "qkv")
    PackedWindows([13, 7])(q, k, v).float().square().sum().backward()
    assert all(each.grad is not None and bool(each.grad.any()) for each in (q, k, v))


def test_windows_do_not_see_each_other() -> None:
    q, k, v = torch.randn(3, 2 * WINDOW, 2, 8)
    attend = PackedWindows([WINDOW, WINDOW])
    before = attend(q, k, v)
    k[WINDOW:] += 1
    v[WINDOW:] += 1
    after = attend(q, k, v)
    torch.testing.assert_close(before[:WINDOW], after[:WINDOW])
    assert not torch.allclose(before[WINDOW:], after[WINDOW:])


def test_flash_attn_gets_the_packed_windows_and_the_longest_as_a_number(monkeypatch) -> None:
    """A stand-in for flash_attn_varlen_func, with the order of its parameters."""

    def attend(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p=0.0, softmax_scale=None,
               causal=False):  # fmt: skip
        assert type(max_seqlen_q) is type(max_seqlen_k) is int
        assert max_seqlen_q == max_seqlen_k == max(windows)
        assert cu_seqlens_q.dtype is torch.int32
        assert cu_seqlens_q is cu_seqlens_k
        assert (dropout_p, softmax_scale, causal) == (0.0, None, False)
        return PackedWindows(cu_seqlens_q.diff().tolist())(q, k, v)

    monkeypatch.setitem(sys.modules, "flash_attn", SimpleNamespace(flash_attn_varlen_func=attend))
    windows = [104, 13, 91]
    packed = torch.randn(3, sum(windows), 4, 16)
    found = FlashWindows(torch.tensor([0, 104, 117, 208], dtype=torch.int32), max(windows))(*packed)
    torch.testing.assert_close(found, alone(windows, packed), atol=1e-5, rtol=0)


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
    rows = rows_of(windows)
    attend = WindowRows(row_mask(torch.from_numpy(rows.queries), torch.from_numpy(rows.keys), dtype))
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.MATH):
        with sdpa_kernel(backend):
            found = attend(*packed[:, rows.tokens.ravel()])
        assert found.isfinite().all()
        error = {torch.float32: 1e-5, torch.bfloat16: 0.02, torch.float16: 0.005}[dtype]
        torch.testing.assert_close(found[rows.places].float(), alone(windows, packed), atol=error, rtol=0)


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


@pytest.mark.slow
@pytest.mark.parametrize(("frames", "same"), [(50, True), (799, True), (800, True), (801, False), (1600, False)])
def test_up_to_eight_seconds_it_is_the_packages_own_attention(
    recognizer, package_of, asr_folder, frames: int, same: bool
) -> None:
    tower = package_of(asr_folder).thinker.audio_tower
    tower.config._attn_implementation = "sdpa"
    mel = torch.from_numpy(np.random.default_rng(frames).normal(size=(128, frames)).astype(np.float32))
    with torch.inference_mode():
        wanted = tower(mel, feature_lens=torch.tensor([frames])).last_hidden_state
        found = recognizer.model.thinker.audio_tower(mel, [frames])
    assert torch.allclose(found, wanted, atol=1e-5, rtol=0) is same
