"""Kernels in C, held against torch's operations."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import rms_norm

from backend.engine.model.decoder import Decoder
from backend.engine.ops import native
from backend.engine.ops.native_ops import NATIVE, can_use_native, kernels_for
from backend.engine.ops.torch_ops import TORCH, Heads

F32, BF16 = torch.float32, torch.bfloat16
# queries, keys, size; the first is the 0.6B's
HEADS = [(16, 8, 128), (6, 2, 32), (4, 4, 64), (16, 1, 64), (1, 1, 256), (2, 1, 24)]

needs_compiler = pytest.mark.skipif(native.library is None, reason="install.sh found no gcc")


def heads_of(queries: int, keys: int, size: int, dtype: torch.dtype = F32) -> Heads:
    return Heads(queries, keys, size, 0.5 + torch.rand(queries + keys, size).to(dtype), 1e-6)


class Rows:
    """Rows of the given lengths: what a layer projects for the next token of each, and what they have said."""

    def __init__(self, heads: Heads, lengths: list[int], flow: torch.dtype, kept: torch.dtype) -> None:
        torch.manual_seed(11)
        self.lengths = torch.tensor(lengths)
        self.cos_sin = torch.stack([(angle := torch.randn(len(lengths), heads.size)).cos(), angle.sin()]).to(flow)
        self.projected = torch.randn(len(lengths), 1, (heads.queries + 2 * heads.keys) * heads.size).to(flow)
        slots = max(lengths) + 3
        self.held = torch.randn(2, len(lengths), heads.keys, slots, heads.size).to(kept)
        for row, length in enumerate(lengths):
            self.held[:, row, :, length:] = 0


def both(heads: Heads, rows: Rows) -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """What each of the two gives, and the cache that it leaves."""
    plain, compiled = rows.held.clone(), rows.held.clone()
    one = TORCH.decode_attention(rows.lengths, rows.cos_sin)(heads, rows.projected, plain)
    other = NATIVE.decode_attention(rows.lengths, rows.cos_sin)(heads, rows.projected, compiled)
    return (one, plain), (other, compiled)


@needs_compiler
@pytest.mark.usefixtures("version")
@pytest.mark.parametrize("lengths", [[0], [63], [64], [200], [1, 70, 0], [127, 128, 129, 5, 64, 65, 63, 300]], ids=str)
@pytest.mark.parametrize(("queries", "keys", "size"), HEADS)
def test_it_is_what_torch_computes(queries: int, keys: int, size: int, lengths: list[int]) -> None:
    heads = heads_of(queries, keys, size)
    (one, plain), (other, compiled) = both(heads, Rows(heads, lengths, F32, F32))
    torch.testing.assert_close(other, one, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(compiled, plain, atol=1e-5, rtol=1e-5)


@needs_compiler
@pytest.mark.usefixtures("version")
@pytest.mark.parametrize("flow", [F32, BF16])
@pytest.mark.parametrize(("queries", "keys", "size"), HEADS[:2])
def test_keys_and_values_in_sixteen_bits_are_read_as_they_are(queries: int, keys: int, size: int, flow) -> None:
    """The error against float64 is no larger than torch's own."""
    heads = heads_of(queries, keys, size, flow)
    rows = Rows(heads, [100, 7, 64], flow, BF16)
    exact_heads = Heads(queries, keys, size, heads.norm.double(), heads.epsilon)
    exact_held = rows.held.double()
    exact = TORCH.decode_attention(rows.lengths, rows.cos_sin.double())(
        exact_heads, rows.projected.double(), exact_held
    )
    (one, _), (other, compiled) = both(heads, rows)
    assert other.dtype is flow
    assert (other - exact).abs().max() <= max((one - exact).abs().max(), 2e-3)
    torch.testing.assert_close(compiled.double(), exact_held, atol=1e-6, rtol=2**-8)  # rounded once


@needs_compiler
@pytest.mark.usefixtures("version")
def test_a_head_that_is_nearly_silent_is_not_brought_to_full_size() -> None:
    heads = Heads(2, 1, 32, torch.ones(3, 32), 1e-2)
    rows = Rows(heads, [0], F32, F32)
    rows.projected *= 0.01
    (_, plain), (_, compiled) = both(heads, rows)
    assert compiled[0].abs().max() < 0.5
    torch.testing.assert_close(compiled, plain)


@needs_compiler
@pytest.mark.usefixtures("version")
def test_what_is_kept_is_rounded_as_torch_rounds() -> None:
    heads = heads_of(1, 1, 32)
    rows = Rows(heads, [0], F32, BF16)
    near = torch.tensor([1.0, 1.0 + 2**-8, 1.0 + 3 * 2**-8, 1.0 + 2**-8 + 2**-20, -(1.0 + 2**-8), 1e-40, 3.4e38, 0.0])
    odd = torch.tensor([0x7F800000, -0x800000, 0x7FC00000, 0x7FFFFFFF, -0x80000000], dtype=torch.int32).view(F32)
    values = torch.cat([near, odd, torch.randn(19)])
    rows.projected[0, 0, -32:] = values
    _, (_, held) = both(heads, rows)
    kept, wanted = held[1, 0, 0, 0], values.to(BF16)
    assert torch.equal(kept.isnan(), wanted.isnan())
    assert torch.equal(kept[~wanted.isnan()], wanted[~wanted.isnan()])


@needs_compiler
@pytest.mark.usefixtures("version")
@pytest.mark.parametrize("place", ["projected", "keys", "values"])
def test_what_is_no_number_is_not_hidden(place: str) -> None:
    heads = heads_of(2, 1, 32)
    rows = Rows(heads, [70], F32, BF16)
    spoilt = {"projected": rows.projected[0, 0], "keys": rows.held[0, 0, 0, 5], "values": rows.held[1, 0, 0, 5]}[place]
    spoilt[3] = float("nan")
    _, (given, _) = both(heads, rows)
    assert given.isnan().any()


@needs_compiler
@pytest.mark.usefixtures("version")
def test_scores_of_any_size_are_weighed() -> None:
    """e to the 89th is more than float32 can hold; one key outweighs all others, and the others are no error."""
    heads = heads_of(2, 1, 32)
    rows = Rows(heads, [130], F32, F32)
    rows.held[0] *= 1000
    (one, _), (other, _) = both(heads, rows)
    assert other.isfinite().all()
    torch.testing.assert_close(other, one, atol=1e-4, rtol=1e-4)


@needs_compiler
def test_nothing_is_written_but_each_rows_own_slot() -> None:
    heads = heads_of(4, 2, 64)
    rows = Rows(heads, [3, 9], F32, F32)
    _, (_, held) = both(heads, rows)
    changed = (held != rows.held).any(dim=-1).any(dim=2).any(dim=0)  # rows, slots
    assert changed.nonzero().tolist() == [[0, 3], [1, 9]]


@needs_compiler
def test_layers_of_one_step_have_weights_and_a_cache_of_their_own() -> None:
    layers = [heads_of(4, 2, 64), heads_of(4, 2, 64)]
    rows = Rows(layers[0], [5, 8], F32, F32)
    held = torch.stack([rows.held, rows.held.flip(0)])
    plain, compiled = (kernels.decode_attention(rows.lengths, rows.cos_sin) for kernels in (TORCH, NATIVE))
    for heads, one, other in zip(layers, held.clone(), held.clone(), strict=True):
        wanted = plain(heads, rows.projected, one)
        torch.testing.assert_close(compiled(heads, rows.projected, other), wanted, atol=2e-5, rtol=1e-4)


def prompts(heads: Heads, lengths: tuple[int, int], flow: torch.dtype, kept: torch.dtype) -> tuple[torch.Tensor, ...]:
    """Of (rows, positions): what a layer projects, the cos_sin, and a cache with more rows and slots around it."""
    torch.manual_seed(7)
    rows, positions = lengths
    projected = torch.randn(rows, positions, (heads.queries + 2 * heads.keys) * heads.size).to(flow)
    angle = torch.randn(positions, heads.size)
    cos_sin = torch.stack([angle.cos(), angle.sin()]).to(flow)
    around = torch.zeros(2, rows + 2, heads.keys, positions + 3, heads.size, dtype=kept)
    return projected, cos_sin, around


@needs_compiler
@pytest.mark.usefixtures("version")
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (3, 70)], ids=str)
@pytest.mark.parametrize(("queries", "keys", "size"), HEADS)
def test_prompts_attend_as_in_torch(queries: int, keys: int, size: int, shape: tuple[int, int]) -> None:
    heads = heads_of(queries, keys, size)
    projected, cos_sin, plain = prompts(heads, shape, F32, F32)
    compiled = plain.clone()
    wanted = TORCH.prefill_attention(cos_sin)(heads, projected, plain[:, 2:, :, : shape[1]])
    found = NATIVE.prefill_attention(cos_sin)(heads, projected, compiled[:, 2:, :, : shape[1]])
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(compiled, plain, atol=1e-5, rtol=1e-5)
    assert not compiled[:, :2].any()


@needs_compiler
@pytest.mark.usefixtures("version")
@pytest.mark.parametrize("flow", [F32, BF16])
@pytest.mark.parametrize("shape", [(1, 9), (3, 70)], ids=str)
@pytest.mark.parametrize(("queries", "keys", "size"), HEADS)
def test_prompts_in_sixteen_bits_are_as_exact_as_torchs(queries: int, keys: int, size: int, shape, flow) -> None:
    heads = heads_of(queries, keys, size, flow)
    projected, cos_sin, compiled = prompts(heads, shape, flow, BF16)
    plain, exact_held = compiled.clone(), compiled.double()
    exact_heads = Heads(queries, keys, size, heads.norm.double(), heads.epsilon)
    exact = TORCH.prefill_attention(cos_sin.double())(exact_heads, projected.double(), exact_held[:, 2:, :, : shape[1]])
    # torch's own in sixteen bits throughout: what flows in float32 it attends with in float32
    sixteen = Heads(queries, keys, size, heads.norm.to(BF16), heads.epsilon)
    wanted = TORCH.prefill_attention(cos_sin.to(BF16))(sixteen, projected.to(BF16), plain[:, 2:, :, : shape[1]])
    found = NATIVE.prefill_attention(cos_sin)(heads, projected, compiled[:, 2:, :, : shape[1]])
    assert found.dtype is flow
    assert (found - exact).abs().max() <= 1.1 * (wanted - exact).abs().max()
    torch.testing.assert_close(compiled.double(), exact_held, atol=1e-6, rtol=2**-8)  # rounded once


@needs_compiler
@torch.inference_mode()
def test_the_demos_decoder_uses_it_and_says_the_same(monkeypatch, decoder: Decoder) -> None:
    assert decoder._kernels is NATIVE
    torch.manual_seed(5)
    prompts, lengths, said = torch.randint(500, (2, 30)), torch.tensor([30, 17]), torch.randint(500, (40, 2))
    embedded = decoder.embed(prompts)
    found, compiled = decoder.prefill(embedded, lengths)
    with monkeypatch.context() as patch:
        patch.setattr(decoder, "_kernels", TORCH)
        wanted, plain = decoder.prefill(embedded, lengths)
    torch.testing.assert_close(found, wanted, atol=2e-3, rtol=1e-3)
    for tokens in said:
        kv = plain.grow()
        wanted = decoder.forward_step(tokens, kv, plain.lengths, decoder.rope_cos_sin(kv.shape[4]), TORCH)
        plain.advance()
        torch.testing.assert_close(decoder.decode_step(tokens, compiled), wanted, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("heads", "kept"),
    [
        (heads_of(17, 1, 32), torch.empty(0)),
        (heads_of(3, 2, 32), torch.empty(0)),
        (heads_of(2, 1, 36), torch.empty(0)),
        (heads_of(2, 1, 288), torch.empty(0)),
        (heads_of(2, 1, 32, torch.float16), torch.empty(0, dtype=torch.float16)),
        (heads_of(2, 1, 32), torch.empty(0, device="meta")),
    ],
    ids=["17 share", "uneven", "size 36", "size 288", "float16", "no cpu"],
)
def test_what_it_does_not_know_is_torchs(heads: Heads, kept: torch.Tensor) -> None:
    assert not can_use_native(heads, kept)
    assert kernels_for(heads, kept) is TORCH


def test_heads_are_normalised_and_turned_as_the_package_does() -> None:
    heads = heads_of(2, 1, 32)
    rows = Rows(heads, [0], F32, F32)
    queries, _, values = heads.apart(rows.projected, rows.cos_sin[:, :, None])
    apart = rows.projected.view(4, 32)
    normed = rms_norm(apart[:2], (32,), eps=1e-6) * heads.norm[:2]
    half_turned = torch.cat([-normed[:, 16:], normed[:, :16]], dim=1)
    torch.testing.assert_close(queries[0, 0], normed * rows.cos_sin[0] + half_turned * rows.cos_sin[1])
    assert torch.equal(values[0, 0, 0], apart[3])
