"""What a decoder computes between its linear layers, in C (csrc/), on CPUs where install.sh found a compiler.

In torch it is fifty small operations a layer, and each passes over memory once more.
"""

from __future__ import annotations

import ctypes
import logging

import torch
from torch.nn.functional import scaled_dot_product_attention

from backend.engine.ops import native
from backend.engine.ops.native import COUNT, FLAG, FLOAT, POINTER
from backend.engine.ops.prefill_attention import attended, can_attend
from backend.engine.ops.torch_ops import TORCH, Attend, Heads, Kernels

_log = logging.getLogger(__name__)

_MOST_SHARING, _MOST_SIZE, _LANES = 16, 256, 8  # as in attention.c
_DTYPES = {torch.float32, torch.bfloat16}


class _Call(ctypes.Structure):
    """`Tokens` of attention.c, where each field is explained."""

    _fields_ = (
        *((name, POINTER) for name in ("projected", "norm", "cos_sin", "keys", "values", "lengths", "out")),
        *((name, COUNT) for name in ("rows", "positions", "heads", "key_heads", "slots", "size")),
        ("epsilon", FLOAT),
        ("flow_is_16", FLAG),
        ("cache_is_16", FLAG),
    )

    def describe(self, heads: Heads, projected: torch.Tensor, held: torch.Tensor, out: torch.Tensor) -> None:
        """What is the same in all layers."""
        self.out = out.data_ptr()
        self.rows, self.positions = projected.shape[:2]
        self.heads, self.key_heads, self.size, self.epsilon = heads.queries, heads.keys, heads.size, heads.epsilon
        self.slots = held.stride(2) // heads.size
        self.flow_is_16, self.cache_is_16 = (tensor.dtype is torch.bfloat16 for tensor in (projected, held))

    def point_to(self, heads: Heads, projected: torch.Tensor, held: torch.Tensor) -> None:
        """What each layer has of its own. The tensors must live as long as the call."""
        self.projected = projected.data_ptr()
        self.norm = heads.norm_as_float.data_ptr()
        self.keys = held.data_ptr()
        self.values = self.keys + held.stride(0) * held.itemsize


class _Native:
    """See Kernels."""

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        x, size = x.contiguous(), x.shape[-1]
        out = torch.empty_like(x)
        native.library.norm(
            x.data_ptr(), weight.data_ptr(), out.data_ptr(), x.numel() // size, size, epsilon, x.dtype is torch.bfloat16
        )
        return out

    def silu_mul(self, gate_up: torch.Tensor) -> torch.Tensor:
        gate_up, size = gate_up.contiguous(), gate_up.shape[-1] // 2
        out = gate_up.new_empty(*gate_up.shape[:-1], size)
        native.library.gate(
            gate_up.data_ptr(), out.data_ptr(), out.numel() // size, size, gate_up.dtype is torch.bfloat16
        )
        return out

    def prefill_attention(self, cos_sin: torch.Tensor) -> Attend:
        return _Prompts(cos_sin)

    def decode_attention(self, lengths: torch.Tensor, cos_sin: torch.Tensor) -> Attend:
        return _Tokens(lengths, cos_sin)


NATIVE: Kernels = _Native()


class _Prompts:
    def __init__(self, cos_sin: torch.Tensor) -> None:
        self._cos_sin = cos_sin.float().contiguous()
        self._queries = torch.empty(0)
        self._ends = self._held = torch.empty(0)
        self._call = _Call(cos_sin=self._cos_sin.data_ptr())

    def __call__(self, heads: Heads, projected: torch.Tensor, held: torch.Tensor) -> torch.Tensor:
        projected = projected.contiguous()
        rows, positions = projected.shape[:2]
        if not self._call.out:
            self._queries = held.new_empty(rows, positions, heads.queries, heads.size)
            self._ends, self._held = torch.arange(rows + 1) * positions, torch.arange(rows) * held.stride(1)
            self._call.describe(heads, projected, held, self._queries)
        self._call.point_to(heads, projected, held)
        native.library.turn(ctypes.byref(self._call))
        scale = heads.size**-0.5
        if can_attend(self._queries):
            answers = attended(
                self._queries.flatten(0, 1), held[0, 0], held[1, 0], self._ends, self._held, scale, projected.dtype,
                causal=True,
            )  # fmt: skip
            return answers.view(rows, positions, -1)
        queries = self._queries.transpose(1, 2)
        answers = scaled_dot_product_attention(queries, held[0], held[1], is_causal=True, enable_gqa=True)
        return answers.transpose(1, 2).flatten(2).to(projected.dtype)


class _Tokens:
    def __init__(self, lengths: torch.Tensor, cos_sin: torch.Tensor) -> None:
        self._lengths = lengths
        self._cos_sin = cos_sin.float().contiguous()
        self._out = torch.empty(0)
        self._call = _Call(lengths=lengths.data_ptr(), cos_sin=self._cos_sin.data_ptr())

    def __call__(self, heads: Heads, projected: torch.Tensor, held: torch.Tensor) -> torch.Tensor:
        projected = projected.contiguous()
        if not self._call.out:
            # A layer is done with it when the next one attends
            self._out = projected.new_empty(len(self._lengths), 1, heads.queries * heads.size)
            self._call.describe(heads, projected, held, self._out)
        self._call.point_to(heads, projected, held)
        native.library.attend(ctypes.byref(self._call))
        return self._out


def kernels_for(heads: Heads, kept: torch.Tensor) -> Kernels:
    """The faster ones that can be had for keys and values of the device and the dtype of `kept`."""
    if native.library is None and kept.device.type == "cpu":
        _log.info("kernels are not compiled; where install.sh finds gcc, a CPU computes up to a third faster")
    return NATIVE if can_use_native(heads, kept) else TORCH


def can_use_native(heads: Heads, kept: torch.Tensor) -> bool:
    """Whether `NATIVE` can compute with such heads."""
    return (
        native.library is not None
        and kept.device.type == "cpu"
        and {kept.dtype, heads.norm.dtype} <= _DTYPES
        and heads.queries % heads.keys == 0
        and heads.queries // heads.keys <= _MOST_SHARING
        and heads.size % _LANES == 0
        and heads.size <= _MOST_SIZE
    )
