"""Attention by torch's operations, as GPUs run it: how exact it is, and how many kernels a layer launches."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from backend.engine.model.decoder import Decoder
from backend.engine.ops import torch_ops
from backend.engine.ops.torch_ops import TORCH, Heads

BF16 = torch.bfloat16


@pytest.mark.parametrize("rows", [1, 3])
def test_scores_that_nearly_agree_share_their_weight_in_16_bits_too(rows: int) -> None:
    """Two keys score 40 and 40.1; in bf16 the scores would be equal, or apart by 0.25."""
    size = 128
    heads = Heads(1, 1, size, torch.ones(2, size, dtype=BF16), 1e-6)
    cos_sin = torch.stack([torch.ones(rows, size), torch.zeros(rows, size)]).to(BF16)
    projected = torch.ones(rows, 1, 3 * size, dtype=BF16)
    kv = torch.zeros(2, rows, 1, 4, size, dtype=BF16)
    scale = size**0.5 / size  # of a key whose elements are all equal, for a score of 1
    kv[0, :, 0, 0], kv[0, :, 0, 1] = 40 * scale, 40.1 * scale
    kv[1, :, 0, 1] = 1
    weights = torch.softmax(kv[0, 0, 0, :2].double().sum(dim=1) * size**-0.5, dim=0)
    lengths = torch.full((rows,), 2)
    attended = TORCH.decode_attention(lengths, cos_sin)(heads, projected, kv)
    torch.testing.assert_close(attended[:, 0, 0].double(), weights[1].expand(rows), atol=3e-3, rtol=0)


@pytest.mark.parametrize("to_float32", [False, True])
def test_products_are_in_float32_with_and_without_a_product_that_returns_it(monkeypatch, to_float32: bool) -> None:
    def bmm(left: Tensor, right: Tensor, out_dtype: torch.dtype | None = None) -> Tensor:
        given.append(left.dtype)
        return multiply(left.to(out_dtype), right.to(out_dtype)) if out_dtype else multiply(left, right)

    given: list[torch.dtype] = []
    multiply: Any = torch.bmm
    monkeypatch.setattr(torch_ops, "_multiplies_to_float32", lambda *_: to_float32)
    monkeypatch.setattr(torch, "bmm", bmm)
    left, right = torch.randn(2, 3, 64).to(BF16), torch.randn(2, 64, 5).to(BF16)
    product = torch_ops._float32_product(left, right)
    assert product.dtype is torch.float32
    torch.testing.assert_close(product.double(), left.double() @ right.double(), atol=1e-5, rtol=1e-5)
    assert given == [BF16 if to_float32 else torch.float32]


class Launches(TorchDispatchMode):
    """Counts the operations that launch a kernel, by name: those that make a tensor of their own, or write to one."""

    _SYNCS = ("_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal")

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **kwargs or {})
        name = func.__name__.partition(".")[0]
        made, given = _storages(result), _storages(args)
        if (name.endswith("_") or made - given) and "empty" not in name:
            self.names[name] += 1
        return result

    @property
    def syncs(self) -> int:
        return sum(self.names[name] for name in self._SYNCS)


def _storages(values: Any) -> set[int]:
    """Whose memory the tensors among the values have; a packed weight, which has no storage, is its own."""
    tensors = [value for value in tree_leaves(values) if isinstance(value, Tensor)]
    return {id(t) if t.layout == torch._mkldnn else t.untyped_storage()._cdata for t in tensors}  # type: ignore[attr-defined]


@pytest.mark.parametrize("rows", [1, 8])
def test_a_decode_step_launches_24_kernels_a_layer_and_waits_for_none(decoder: Decoder, rows: int) -> None:
    """On a GPU four of them are linear layers, and the products are one kernel each. A wait could not be captured."""
    lengths, tokens = torch.arange(rows) + 5, torch.arange(rows)
    cache = decoder.new_cache()
    kv = cache.reserve_rows(rows, 32)
    counts = []
    with torch.inference_mode():
        for layers in (decoder.layers[:1], decoder.layers[:3]):
            with pytest.MonkeyPatch.context() as patch, Launches() as launches:
                patch.setattr(decoder, "layers", layers)
                decoder.forward_step(tokens, kv[: len(layers)], lengths, decoder.rope_cos_sin(32))
            counts.append(launches.names)
            assert not launches.syncs
    two_layers = counts[1] - counts[0]
    assert two_layers.total() <= 2 * 23, two_layers  # one more in 16 bits: the softmax's result is rounded


def test_attention_in_16_bits_on_a_gpu_launches_14_kernels(monkeypatch) -> None:
    monkeypatch.setattr(torch_ops, "_multiplies_to_float32", lambda *_: True)
    with torch.inference_mode():
        there: Any = {"device": "meta", "dtype": BF16}
        heads = Heads(16, 8, 128, torch.empty(24, 128, **there), 1e-6)
        projected, kv = torch.empty(8, 1, 32 * 128, **there), torch.empty(2, 8, 8, 512, 128, **there)
        attend = TORCH.decode_attention(
            torch.empty(8, dtype=torch.long, device="meta"), torch.empty(2, 8, 128, **there)
        )
        attend(heads, projected, kv)  # computes the mask, which serves all layers
        with Launches() as launches:
            attend(heads, projected, kv)
    assert launches.names.total() <= 14, launches.names
    assert not launches.syncs
