"""What a decoder computes between its linear layers, in C (csrc/), on CPUs where install.sh found a compiler; the
layers themselves for a few rows; and attention in bf16, the encoder's too.

In torch the former is fifty small operations a layer, and each passes over memory once more.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from backend.engine import kernels
from backend.engine.kernels import TORCH, Attend, Heads, Kernels

_log = logging.getLogger(__name__)

_CSRC = Path(__file__).with_name("csrc")
_LIBRARY = _CSRC / "libkernels.so"
_MOST_SHARING, _MOST_SIZE, _LANES = 16, 256, 8  # as in attention.c
_DTYPES = {torch.float32, torch.bfloat16}
_SUMS, _LINE = 16, 64  # as in products.c
_BLOCK, _GROUP = 32, 8  # as in prompts.c

_POINTER, _COUNT, _FLOAT, _FLAG = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_int
_ARGUMENTS = {
    "norm": (_POINTER, _POINTER, _POINTER, _COUNT, _COUNT, _FLOAT, _FLAG),
    "gate": (_POINTER, _POINTER, _COUNT, _COUNT, _FLAG),
    "scale": (_POINTER, _POINTER, _POINTER, _COUNT, _COUNT),
    "rescale": (_POINTER, _POINTER, _COUNT, _COUNT),
    "quantize": (_POINTER, _POINTER, _POINTER, _COUNT, _COUNT),
    "dequantize": (_POINTER, _POINTER, _POINTER, _POINTER, _COUNT, _COUNT),
    "multiply_halves": (_POINTER,),
    "multiply_bytes": (_POINTER,),
    "attend_to_prompts": (_POINTER,),
    "turn": (_POINTER,),
    "attend": (_POINTER,),
}


class _Call(ctypes.Structure):
    """`Tokens` of attention.c, where each field is explained."""

    _fields_ = (
        *((name, _POINTER) for name in ("projected", "norm", "angles", "keys", "values", "lengths", "out")),
        *((name, _COUNT) for name in ("rows", "positions", "heads", "key_heads", "slots", "size")),
        ("epsilon", _FLOAT),
        ("flow_is_16", _FLAG),
        ("cache_is_16", _FLAG),
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


class _Product(ctypes.Structure):
    """`Product` of products.c, where each field is explained."""

    _fields_ = (
        *((name, _POINTER) for name in ("rows", "weight", "numbers", "largest", "scales", "shift", "out")),
        *((name, _COUNT) for name in ("count", "outputs", "inputs")),
    )


class _Prompted(ctypes.Structure):
    """`Prompts` of prompts.c, where each field is explained."""

    _fields_ = (
        *((name, _POINTER) for name in ("queries", "keys", "values", "out", "scratch", "ends", "held")),
        *((n, _COUNT) for n in ("head_apart", "slot_apart", "rows", "heads", "key_heads", "size", "slots")),
        ("scale", _FLOAT),
        ("causal", _FLAG),
        ("out_is_16", _FLAG),
    )


class _Compiled:
    """See Kernels."""

    def normed(self, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        x, size = x.contiguous(), x.shape[-1]
        out = torch.empty_like(x)
        library.norm(
            x.data_ptr(), weight.data_ptr(), out.data_ptr(), x.numel() // size, size, epsilon, x.dtype is torch.bfloat16
        )
        return out

    def gated(self, gate_up: torch.Tensor) -> torch.Tensor:
        gate_up, size = gate_up.contiguous(), gate_up.shape[-1] // 2
        out = gate_up.new_empty(*gate_up.shape[:-1], size)
        library.gate(gate_up.data_ptr(), out.data_ptr(), out.numel() // size, size, gate_up.dtype is torch.bfloat16)
        return out

    def prompts(self, angles: torch.Tensor) -> Attend:
        return _Prompts(angles)

    def tokens(self, lengths: torch.Tensor, angles: torch.Tensor) -> Attend:
        return _Tokens(lengths, angles)


COMPILED: Kernels = _Compiled()


def can_attend(queries: torch.Tensor) -> bool:
    """Whether `attended` takes such queries (…, size)."""
    return (
        library is not None
        and queries.device.type == "cpu"
        and queries.dtype is torch.bfloat16
        and queries.shape[-1] % _BLOCK == 0
        and bool(library.multiplies_halves())
    )


def attended(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    ends: torch.Tensor,
    held: torch.Tensor,
    scale: float,
    dtype: torch.dtype = torch.bfloat16,
    *,
    causal: bool,
) -> torch.Tensor:
    """Attention of many queries in bf16, (tokens, heads, size): of rows, one behind the other, each to its own.

    `ends`: where rows end, from 0 on, (rows + 1,). `keys` and `values`: of the first row, (key heads, slots, size),
    its tokens in order; `held`: how many numbers behind them those of each row stand, (rows,). Gives the answers in
    `dtype`, bf16 or float32, like the queries. `causal`: a token sees itself and those before it, else all of its row.
    Raises ValueError where keys and values do not lie alike.
    """
    if keys.stride() != values.stride() or keys.stride(2) != 1:
        raise ValueError("keys and values lie alike, each number behind the one before")
    queries = queries.contiguous()
    heads, size = queries.shape[1:]
    rows, longest = len(held), int(ends.diff().max())
    slots = -(-longest // _BLOCK) * _BLOCK
    laid_out, scores = 2 * rows * len(keys) * slots * size, torch.get_num_threads() * _GROUP * slots
    scratch = queries.new_empty(laid_out + 2 * scores)
    out = torch.empty_like(queries, dtype=dtype)
    call = _Prompted(
        queries=queries.data_ptr(), keys=keys.data_ptr(), values=values.data_ptr(), out=out.data_ptr(),
        scratch=scratch.data_ptr(), ends=ends.data_ptr(), held=held.data_ptr(),
        head_apart=keys.stride(0), slot_apart=keys.stride(1),
        rows=rows, heads=heads, key_heads=len(keys), size=size, slots=slots,
        scale=scale, causal=causal, out_is_16=dtype is torch.bfloat16,
    )  # fmt: skip
    library.attend_to_prompts(ctypes.byref(call))
    return out


class _Prompts:
    def __init__(self, angles: torch.Tensor) -> None:
        self._angles = angles.float().contiguous()
        self._queries = torch.empty(0)
        self._ends = self._held = torch.empty(0)
        self._call = _Call(angles=self._angles.data_ptr())

    def __call__(self, heads: Heads, projected: torch.Tensor, held: torch.Tensor) -> torch.Tensor:
        projected = projected.contiguous()
        rows, positions = projected.shape[:2]
        if not self._call.out:
            self._queries = held.new_empty(rows, positions, heads.queries, heads.size)
            self._ends, self._held = torch.arange(rows + 1) * positions, torch.arange(rows) * held.stride(1)
            self._call.describe(heads, projected, held, self._queries)
        self._call.point_to(heads, projected, held)
        library.turn(ctypes.byref(self._call))
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
    def __init__(self, lengths: torch.Tensor, angles: torch.Tensor) -> None:
        self._lengths = lengths
        self._angles = angles.float().contiguous()
        self._out = torch.empty(0)
        self._call = _Call(lengths=lengths.data_ptr(), angles=self._angles.data_ptr())

    def __call__(self, heads: Heads, projected: torch.Tensor, held: torch.Tensor) -> torch.Tensor:
        projected = projected.contiguous()
        if not self._call.out:
            # A layer is done with it when the next one attends
            self._out = projected.new_empty(len(self._lengths), 1, heads.queries * heads.size)
            self._call.describe(heads, projected, held, self._out)
        self._call.point_to(heads, projected, held)
        library.attend(ctypes.byref(self._call))
        return self._out


def scaled(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """As kernels.scaled, on a CPU."""
    if library is None:
        return kernels.scaled(rows)
    rows = rows.contiguous()
    out, largest = torch.empty_like(rows), rows.new_empty(len(rows), 1)
    library.scale(rows.data_ptr(), out.data_ptr(), largest.data_ptr(), *rows.shape)
    return out, largest


def rescale_(rows: torch.Tensor, largest: torch.Tensor) -> None:
    """Rows (rows, size) in float32, each times its `largest`."""
    if library is None:
        rows *= largest
    else:
        library.rescale(rows.data_ptr(), largest.data_ptr(), *rows.shape)


def quantized(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows (rows, size) in float32 as bytes from -127 to 127, and what 127 stands for in each, (rows, 1)."""
    rows = rows.contiguous()
    out, largest = torch.empty_like(rows, dtype=torch.int8), rows.new_empty(len(rows), 1)
    library.quantize(rows.data_ptr(), out.data_ptr(), largest.data_ptr(), *rows.shape)
    return out, largest


def dequantized(sums: torch.Tensor, largest: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """What sums of products of bytes stand for, in their place: (rows, outputs), in float32 where they were int32."""
    out = sums.view(torch.float32)
    library.dequantize(sums.data_ptr(), out.data_ptr(), largest.data_ptr(), scales.data_ptr(), *sums.shape)
    return out


def can_multiply(weight: torch.Tensor) -> bool:
    """Whether `product` and `product_of_bytes` take such weights (outputs, inputs): of bf16, and of int8."""
    if library is None or weight.device.type != "cpu" or not weight.is_contiguous():
        return False
    if len(weight) % _SUMS or weight.shape[1] * weight.itemsize % _LINE:
        return False
    multiplies = {torch.bfloat16: library.multiplies_halves, torch.int8: library.multiplies_bytes}
    return weight.dtype in multiplies and bool(multiplies[weight.dtype]())


def product(rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """x Wᵀ of a few rows (…, inputs) in bf16, (…, outputs)."""
    rows = rows.contiguous()
    out = rows.new_empty(*rows.shape[:-1], len(weight))
    count = rows.numel() // rows.shape[-1]
    _call(library.multiply_halves, rows=rows, weight=weight, out=out, count=count)
    return out


def product_of_bytes(
    rows: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor, shift: torch.Tensor
) -> torch.Tensor:
    """x Wᵀ of a few rows (rows, inputs) in float32, (rows, outputs), by way of bytes as `quantized` gives them.

    `scales` (outputs,): what 1 stands for in a weight; `shift` (outputs,): the sums of an output's weights times 128,
    in int32.
    """
    rows = rows.contiguous()
    bytes_, largest = torch.empty_like(rows, dtype=torch.int8), rows.new_empty(len(rows))
    out = rows.new_empty(len(rows), len(weight))
    _call(
        library.multiply_bytes,
        numbers=rows, rows=bytes_, largest=largest, weight=weight, scales=scales, shift=shift, out=out, count=len(rows),
    )  # fmt: skip
    return out


def _call(multiply: Any, *, weight: torch.Tensor, count: int, **tensors: torch.Tensor) -> None:
    pointers = {name: tensor.data_ptr() for name, tensor in tensors.items()}
    outputs, inputs = weight.shape
    multiply(ctypes.byref(_Product(weight=weight.data_ptr(), count=count, outputs=outputs, inputs=inputs, **pointers)))


def kernels_for(heads: Heads, kept: torch.Tensor) -> Kernels:
    """The faster ones that can be had for keys and values of the device and the dtype of `kept`."""
    if library is None and kept.device.type == "cpu":
        _log.info("kernels are not compiled; where install.sh finds gcc, a CPU computes up to a third faster")
    return COMPILED if can_compile(heads, kept) else TORCH


def can_compile(heads: Heads, kept: torch.Tensor) -> bool:
    """Whether `COMPILED` can compute with such heads."""
    return (
        library is not None
        and kept.device.type == "cpu"
        and {kept.dtype, heads.norm.dtype} <= _DTYPES
        and heads.queries % heads.keys == 0
        and heads.queries // heads.keys <= _MOST_SHARING
        and heads.size % _LANES == 0
        and heads.size <= _MOST_SIZE
    )


def _loaded(path: Path, sources: Path = _CSRC) -> Any:
    """Our own library; None where there is none, or one that fits neither this machine nor what is called here."""
    if not path.exists():
        return None
    try:
        loaded = ctypes.CDLL(str(path))
        if ctypes.c_char_p.in_dll(loaded, "source").value == digest(sources).encode():
            for name, arguments in _ARGUMENTS.items():
                getattr(loaded, name).argtypes = arguments
                getattr(loaded, name).restype = None
            return loaded
        cause = "it is not of this version"
    except (OSError, ValueError, AttributeError) as error:  # of another kind of machine; without what we ask for
        cause = str(error)
    _log.warning("%s is not used (%s); remove it and run install.sh", path.name, cause)
    return None


def digest(sources: Path = _CSRC) -> str:
    """Of the sources, which the library knows of those it was made of."""
    sha = hashlib.sha256()
    for source in sorted(sources.glob("*.[ch]")):
        sha.update(source.read_bytes())
    return sha.hexdigest()


library = _loaded(_LIBRARY)  # after torch, whose OpenMP it shares
