"""The C kernels of a decoder (csrc/attention.c, csrc/rowwise.c) against torch's operations."""

from __future__ import annotations

import pytest
import torch
from kernel_marks import needs_kernels
from torch.nn.functional import rms_norm

from backend.engine.model.decoder import Decoder
from backend.engine.ops.native_ops import NATIVE, can_use_native, kernels_for
from backend.engine.ops.torch_ops import TORCH, Heads, signed

F32, BF16 = torch.float32, torch.bfloat16
# queries, keys, size; the first is the 0.6B's
HEADS = [(16, 8, 128), (6, 2, 32), (4, 4, 64), (16, 1, 64), (1, 1, 256), (2, 1, 24)]

needs_compiler = needs_kernels("rope, decode_attention")


def heads_of(queries: int, keys: int, size: int, dtype: torch.dtype = F32) -> Heads:
    return Heads(queries, keys, size, 0.5 + torch.rand(queries + keys, size).to(dtype), 1e-6)


class Rows:
    """Rows of the given lengths: a layer's projection for the next token of each, and its part of the KV cache."""

    def __init__(self, heads: Heads, lengths: list[int], activations: torch.dtype, cache: torch.dtype) -> None:
        torch.manual_seed(11)
        self.lengths = torch.tensor(lengths)
        self.cos_sin = torch.stack([(angle := torch.randn(len(lengths), heads.size)).cos(), angle.sin()]).to(
            activations
        )
        self.projected = torch.randn(len(lengths), 1, (heads.queries + 2 * heads.keys) * heads.size).to(activations)
        slots = max(lengths) + 3
        self.kv = torch.randn(2, len(lengths), heads.keys, slots, heads.size).to(cache)
        for row, length in enumerate(lengths):
            self.kv[:, row, :, length:] = 0


def both(heads: Heads, rows: Rows) -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """The output of torch and of the C kernels, each with the cache that it leaves."""
    plain, compiled = rows.kv.clone(), rows.kv.clone()
    one = TORCH.decode_attention(rows.lengths, rows.cos_sin)(heads, rows.projected, plain)
    other = NATIVE.decode_attention(rows.lengths, rows.cos_sin)(heads, rows.projected, compiled)
    return (one, plain), (other, compiled)


@needs_compiler
@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("lengths", [[0], [63], [64], [200], [1, 70, 0], [127, 128, 129, 5, 64, 65, 63, 300]], ids=str)
@pytest.mark.parametrize(("queries", "keys", "size"), HEADS)
def test_decode_attention_equals_torchs(queries: int, keys: int, size: int, lengths: list[int]) -> None:
    heads = heads_of(queries, keys, size)
    (one, plain), (other, compiled) = both(heads, Rows(heads, lengths, F32, F32))
    torch.testing.assert_close(other, one, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(compiled, plain, atol=1e-5, rtol=1e-5)


@needs_compiler
@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("activations", [F32, BF16])
@pytest.mark.parametrize(("queries", "keys", "size"), HEADS[:2])
def test_a_bf16_cache_is_computed_in_float32(queries: int, keys: int, size: int, activations) -> None:
    """The error against float64 is about torch's own, which has float32 scores, too."""
    heads = heads_of(queries, keys, size, activations)
    rows = Rows(heads, [100, 7, 64], activations, BF16)
    exact_heads = Heads(queries, keys, size, heads.norm.double(), heads.epsilon)
    exact_kv = rows.kv.double()
    exact = TORCH.decode_attention(rows.lengths, rows.cos_sin.double())(exact_heads, rows.projected.double(), exact_kv)
    (one, _), (other, compiled) = both(heads, rows)
    assert other.dtype is activations
    assert (other - exact).abs().max() <= max(1.25 * float((one - exact).abs().max()), 2e-3)
    torch.testing.assert_close(compiled.double(), exact_kv, atol=1e-6, rtol=2**-8)  # rounded once


@needs_compiler
@pytest.mark.usefixtures("instruction_set")
def test_the_qk_norm_adds_epsilon_to_the_mean_square() -> None:
    heads = Heads(2, 1, 32, torch.ones(3, 32), 1e-2)
    rows = Rows(heads, [0], F32, F32)
    rows.projected *= 0.01
    (_, plain), (_, compiled) = both(heads, rows)
    assert compiled[0].abs().max() < 0.5
    torch.testing.assert_close(compiled, plain)


@needs_compiler
@pytest.mark.usefixtures("instruction_set")
def test_the_cache_is_rounded_to_bf16_as_torch_rounds() -> None:
    heads = heads_of(1, 1, 32)
    rows = Rows(heads, [0], F32, BF16)
    near = torch.tensor([1.0, 1.0 + 2**-8, 1.0 + 3 * 2**-8, 1.0 + 2**-8 + 2**-20, -(1.0 + 2**-8), 1e-40, 3.4e38, 0.0])
    odd = torch.tensor([0x7F800000, -0x800000, 0x7FC00000, 0x7FFFFFFF, -0x80000000], dtype=torch.int32).view(F32)
    values = torch.cat([near, odd, torch.randn(19)])
    rows.projected[0, 0, -32:] = values
    _, (_, kv) = both(heads, rows)
    stored, wanted = kv[1, 0, 0, 0], values.to(BF16)
    assert torch.equal(stored.isnan(), wanted.isnan())
    assert torch.equal(stored[~wanted.isnan()], wanted[~wanted.isnan()])


@needs_compiler
@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("place", ["projected", "keys", "values"])
def test_nan_shows_in_the_output(place: str) -> None:
    heads = heads_of(2, 1, 32)
    rows = Rows(heads, [70], F32, BF16)
    place_of_nan = {"projected": rows.projected[0, 0], "keys": rows.kv[0, 0, 0, 5], "values": rows.kv[1, 0, 0, 5]}[
        place
    ]
    place_of_nan[3] = float("nan")
    _, (found, _) = both(heads, rows)
    assert found.isnan().any()


@needs_compiler
@pytest.mark.usefixtures("instruction_set")
def test_softmax_of_scores_of_any_size_is_finite() -> None:
    """exp(89) is more than float32 can hold; here one key outweighs all others."""
    heads = heads_of(2, 1, 32)
    rows = Rows(heads, [130], F32, F32)
    rows.kv[0] *= 1000
    (one, _), (other, _) = both(heads, rows)
    assert other.isfinite().all()
    torch.testing.assert_close(other, one, atol=1e-4, rtol=1e-4)


@needs_compiler
def test_only_each_rows_own_slot_is_written() -> None:
    heads = heads_of(4, 2, 64)
    rows = Rows(heads, [3, 9], F32, F32)
    _, (_, kv) = both(heads, rows)
    changed = (kv != rows.kv).any(dim=-1).any(dim=2).any(dim=0)  # rows, slots
    assert changed.nonzero().tolist() == [[0, 3], [1, 9]]


@needs_compiler
def test_each_layer_of_a_step_uses_its_own_weights_and_cache() -> None:
    layers = [heads_of(4, 2, 64), heads_of(4, 2, 64)]
    rows = Rows(layers[0], [5, 8], F32, F32)
    kv = torch.stack([rows.kv, rows.kv.flip(0)])
    plain, compiled = (kernels.decode_attention(rows.lengths, rows.cos_sin) for kernels in (TORCH, NATIVE))
    for heads, one, other in zip(layers, kv.clone(), kv.clone(), strict=True):
        wanted = plain(heads, rows.projected, one)
        torch.testing.assert_close(compiled(heads, rows.projected, other), wanted, atol=2e-5, rtol=1e-4)


def prompts(
    heads: Heads, lengths: tuple[int, int], activations: torch.dtype, cache: torch.dtype
) -> tuple[torch.Tensor, ...]:
    """For (rows, positions): a layer's projection, `cos_sin`, and a cache with more rows and slots."""
    torch.manual_seed(7)
    rows, positions = lengths
    projected = torch.randn(rows, positions, (heads.queries + 2 * heads.keys) * heads.size).to(activations)
    angle = torch.randn(positions, heads.size)
    cos_sin = torch.stack([angle.cos(), angle.sin()]).to(activations)
    larger = torch.zeros(2, rows + 2, heads.keys, positions + 3, heads.size, dtype=cache)
    return projected, cos_sin, larger


@needs_compiler
@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (3, 70)], ids=str)
@pytest.mark.parametrize(("queries", "keys", "size"), HEADS)
def test_prefill_attention_equals_torchs(queries: int, keys: int, size: int, shape: tuple[int, int]) -> None:
    heads = heads_of(queries, keys, size)
    projected, cos_sin, plain = prompts(heads, shape, F32, F32)
    compiled = plain.clone()
    wanted = TORCH.prefill_attention(cos_sin)(heads, projected, plain[:, 2:, :, : shape[1]])
    found = NATIVE.prefill_attention(cos_sin)(heads, projected, compiled[:, 2:, :, : shape[1]])
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(compiled, plain, atol=1e-5, rtol=1e-5)
    assert not compiled[:, :2].any()


@needs_compiler
@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("activations", [F32, BF16])
@pytest.mark.parametrize("shape", [(1, 9), (3, 70)], ids=str)
@pytest.mark.parametrize(("queries", "keys", "size"), HEADS)
def test_prefill_in_bf16_is_as_exact_as_torchs(queries: int, keys: int, size: int, shape, activations) -> None:
    heads = heads_of(queries, keys, size, activations)
    projected, cos_sin, compiled = prompts(heads, shape, activations, BF16)
    plain, exact_kv = compiled.clone(), compiled.double()
    exact_heads = Heads(queries, keys, size, heads.norm.double(), heads.epsilon)
    exact = TORCH.prefill_attention(cos_sin.double())(exact_heads, projected.double(), exact_kv[:, 2:, :, : shape[1]])
    # torch's own with everything in bf16: with float32 activations it would attend in float32
    bf16_heads = Heads(queries, keys, size, heads.norm.to(BF16), heads.epsilon)
    wanted = TORCH.prefill_attention(cos_sin.to(BF16))(bf16_heads, projected.to(BF16), plain[:, 2:, :, : shape[1]])
    found = NATIVE.prefill_attention(cos_sin)(heads, projected, compiled[:, 2:, :, : shape[1]])
    assert found.dtype is activations
    assert (found - exact).abs().max() <= 1.1 * (wanted - exact).abs().max()
    torch.testing.assert_close(compiled.double(), exact_kv, atol=1e-6, rtol=2**-8)  # rounded once


@needs_compiler
@torch.inference_mode()
def test_the_demo_decoder_uses_the_kernels_and_gives_the_same_logits(monkeypatch, decoder: Decoder) -> None:
    assert decoder._kernels is NATIVE
    torch.manual_seed(5)
    prompts, lengths, steps = torch.randint(500, (2, 30)), [30, 17], torch.randint(500, (40, 2))
    embedded = decoder.embed(prompts)
    found, compiled = decoder.prefill(embedded, lengths)
    with monkeypatch.context() as patch:
        patch.setattr(decoder, "_kernels", TORCH)
        wanted, plain = decoder.prefill(embedded, lengths)
    torch.testing.assert_close(found, wanted, atol=2e-3, rtol=1e-3)
    for tokens in steps:
        kv = plain.grow()
        wanted = decoder.forward_step(tokens, kv, plain.lengths, decoder.rope_cos_sin(kv.shape[4]), TORCH)
        plain.advance()
        torch.testing.assert_close(decoder.decode_step(tokens, compiled), wanted, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("heads", "cache"),
    [
        (heads_of(17, 1, 32), torch.empty(0)),
        (heads_of(3, 2, 32), torch.empty(0)),
        (heads_of(2, 1, 36), torch.empty(0)),
        (heads_of(2, 1, 288), torch.empty(0)),
        (heads_of(2, 1, 32, torch.float16), torch.empty(0, dtype=torch.float16)),
        (heads_of(2, 1, 32), torch.empty(0, device="meta")),
    ],
    ids=["17 share", "uneven", "size 36", "size 288", "float16", "not on a CPU"],
)
def test_heads_and_caches_beyond_the_kernels_limits_are_left_to_torch(heads: Heads, cache: torch.Tensor) -> None:
    assert not can_use_native(heads, cache)
    assert kernels_for(heads, cache) is TORCH


def test_qk_norm_and_rope_equal_the_packages() -> None:
    heads = heads_of(2, 1, 32)
    rows = Rows(heads, [0], F32, F32)
    queries, _, values = heads.split_and_rotate(rows.projected, signed(rows.cos_sin)[:, :, None])
    apart = rows.projected.view(4, 32)
    normed = rms_norm(apart[:2], (32,), eps=1e-6) * heads.norm[:2]
    rotated_halves = torch.cat([-normed[:, 16:], normed[:, :16]], dim=1)
    torch.testing.assert_close(queries[0, 0], normed * rows.cos_sin[0] + rotated_halves * rows.cos_sin[1])
    assert torch.equal(values[0, 0, 0], apart[3])
