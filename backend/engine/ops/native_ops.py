"""What a decoder computes between its linear layers, in C (csrc/), on CPUs where install.sh found a compiler.

`NATIVE` computes the same as torch_ops.TORCH, which is its oracle in the tests. In torch it is fifty small operations a
layer, and each passes over memory once more.
"""

from __future__ import annotations

import ctypes
import logging

import torch
from torch.nn.functional import scaled_dot_product_attention

from backend.engine.ops import native
from backend.engine.ops.native_args import AttentionArgs
from backend.engine.ops.prefill_attention import can_attend, prefill_attention
from backend.engine.ops.torch_ops import TORCH, Attend, Heads, Kernels

_log = logging.getLogger(__name__)

_DTYPES = {torch.float32, torch.bfloat16}


class _Native:
    """See Kernels."""

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        x, size = x.contiguous(), x.shape[-1]
        out = torch.empty_like(x)
        native.library.rms_norm(
            x.data_ptr(), weight.data_ptr(), out.data_ptr(), x.numel() // size, size, epsilon, x.dtype is torch.bfloat16
        )
        return out

    def silu_mul(self, gate_up: torch.Tensor) -> torch.Tensor:
        gate_up, size = gate_up.contiguous(), gate_up.shape[-1] // 2
        out = gate_up.new_empty(*gate_up.shape[:-1], size)
        native.library.silu_mul(
            gate_up.data_ptr(), out.data_ptr(), out.numel() // size, size, gate_up.dtype is torch.bfloat16
        )
        return out

    def prefill_attention(self, cos_sin: torch.Tensor) -> Attend:
        return _PrefillAttention(cos_sin)

    def decode_attention(self, lengths: torch.Tensor, cos_sin: torch.Tensor) -> Attend:
        return _DecodeAttention(lengths, cos_sin)


NATIVE: Kernels = _Native()


class _PrefillAttention:
    """An Attend: QK-norm, RoPE and the KV cache in C; attention in C where it has the dtype, else by torch."""

    def __init__(self, cos_sin: torch.Tensor) -> None:
        self._cos_sin = cos_sin.float().contiguous()
        self._queries = torch.empty(0)
        self._cu_seqlens = self._kv_offsets = torch.empty(0)
        self._args = AttentionArgs(cos_sin=self._cos_sin.data_ptr())

    def __call__(self, heads: Heads, projected: torch.Tensor, kv: torch.Tensor) -> torch.Tensor:
        projected = projected.contiguous()
        rows, positions = projected.shape[:2]
        if not self._args.out:
            self._queries = kv.new_empty(rows, positions, heads.queries, heads.size)
            self._cu_seqlens, self._kv_offsets = torch.arange(rows + 1) * positions, torch.arange(rows) * kv.stride(1)
            _set_sizes(self._args, heads, projected, kv, self._queries)
        _set_layer(self._args, heads, projected, kv)
        native.library.rope(ctypes.byref(self._args))
        if can_attend(self._queries):
            attended = prefill_attention(
                self._queries.flatten(0, 1), kv[0, 0], kv[1, 0], self._cu_seqlens, self._kv_offsets, heads.size**-0.5,
                projected.dtype, causal=True,
            )  # fmt: skip
            return attended.view(rows, positions, -1)
        queries = self._queries.transpose(1, 2)
        attended = scaled_dot_product_attention(queries, kv[0], kv[1], is_causal=True, enable_gqa=True)
        return attended.transpose(1, 2).flatten(2).to(projected.dtype)


class _DecodeAttention:
    """An Attend: everything in C."""

    def __init__(self, lengths: torch.Tensor, cos_sin: torch.Tensor) -> None:
        self._lengths = lengths
        self._cos_sin = cos_sin.float().contiguous()
        self._out = torch.empty(0)
        self._args = AttentionArgs(lengths=lengths.data_ptr(), cos_sin=self._cos_sin.data_ptr())

    def __call__(self, heads: Heads, projected: torch.Tensor, kv: torch.Tensor) -> torch.Tensor:
        projected = projected.contiguous()
        if not self._args.out:
            # One output for all layers: a layer is done with it before the next layer attends.
            self._out = projected.new_empty(len(self._lengths), 1, heads.queries * heads.size)
            _set_sizes(self._args, heads, projected, kv, self._out)
        _set_layer(self._args, heads, projected, kv)
        native.library.decode_attention(ctypes.byref(self._args))
        return self._out


def _set_sizes(args: AttentionArgs, heads: Heads, projected: torch.Tensor, kv: torch.Tensor, out: torch.Tensor) -> None:
    """The arguments that are the same in all layers."""
    args.out = out.data_ptr()
    args.rows, args.positions = projected.shape[:2]
    args.heads, args.key_heads, args.size, args.epsilon = heads.queries, heads.keys, heads.size, heads.epsilon
    args.slots = kv.stride(2) // heads.size
    args.activations_are_bf16, args.cache_is_bf16 = (tensor.dtype is torch.bfloat16 for tensor in (projected, kv))


def _set_layer(args: AttentionArgs, heads: Heads, projected: torch.Tensor, kv: torch.Tensor) -> None:
    """The arguments of one layer. The tensors must live as long as the call."""
    args.projected = projected.data_ptr()
    args.norm = heads.norm_float32.data_ptr()
    args.keys = kv.data_ptr()
    args.values = args.keys + kv.stride(0) * kv.itemsize


def kernels_for(heads: Heads, cache: torch.Tensor) -> Kernels:
    """The fastest kernels for a KV cache of the device and the dtype of `cache`."""
    if native.library is None and cache.device.type == "cpu":
        _log.info(
            "C kernels are not compiled; where install.sh finds gcc, a CPU transcribes a tenth to a quarter faster"
        )
    return NATIVE if can_use_native(heads, cache) else TORCH


def can_use_native(heads: Heads, cache: torch.Tensor) -> bool:
    """Whether `NATIVE` can compute with such heads and such a cache."""
    return (
        native.library is not None
        and cache.device.type == "cpu"
        and {cache.dtype, heads.norm.dtype} <= _DTYPES
        and heads.queries % heads.keys == 0
        and heads.queries // heads.keys <= native.limits["max_sharing_heads"]
        and heads.size % native.limits["lanes"] == 0
        and heads.size <= native.limits["max_head_size"]
    )
