"""What a decoder computes between its linear layers, in C (csrc/), on CPUs where install.sh found a compiler; and the
layers themselves for a few rows.

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
from backend.engine.device import onednn_takes
from backend.engine.kernels import TORCH, Attend, Heads, Kernels

_log = logging.getLogger(__name__)

_CSRC = Path(__file__).with_name("csrc")
_LIBRARY = _CSRC / "libkernels.so"
_MOST_SHARING, _MOST_SIZE, _LANES = 16, 256, 8  # as in attention.c
_DTYPES = {torch.float32, torch.bfloat16}
_SUMS, _LINE = 16, 64  # as in products.c
_MOST_SCORES = 1 << 24  # twice 32 MB, which the heap keeps (engine/heap.py); beyond, torch's way holds but a block

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
    "weigh": (_POINTER, _POINTER, _POINTER, _COUNT, _COUNT, _COUNT, _COUNT, _FLOAT),
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
        *((name, _POINTER) for name in ("rows", "weight", "largest", "scales", "shift", "out")),
        *((name, _COUNT) for name in ("count", "outputs", "inputs")),
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


def can_attend(queries: torch.Tensor, keys: int) -> bool:
    """Whether `attended` takes such queries (rows, heads, positions, size), of so many keys each."""
    return (
        library is not None
        and queries.dtype is torch.bfloat16
        and onednn_takes(queries)
        and queries.shape[:3].numel() * keys <= _MOST_SCORES
    )


def attended(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, known: torch.Tensor, scale: float, causal: bool
) -> torch.Tensor:
    """Attention in bf16, (rows, heads, positions, size); fewer heads of keys and values are shared.

    `known`: how many keys the queries of a row see, (rows,); or of a position, (positions,), if that is `causal`.

    Three products by oneDNN, which take a third of the time of torch's flash attention on CPUs: scores, rounded to
    sixteen bits; what was rounded off, so that weights come from scores as exact as float32; the answers.
    """
    rows, heads, positions, size = queries.shape
    keys, values = keys.flatten(0, 1).contiguous().transpose(1, 2), values.flatten(0, 1)  # else copied twice
    asked = queries.reshape(len(values), -1, size)
    scores = torch.bmm(asked, keys)
    rest = torch.baddbmm(scores, asked, keys, beta=-1)
    every = 1 if causal else heads * positions
    library.weigh(
        scores.data_ptr(), rest.data_ptr(), known.data_ptr(),
        rows * heads * positions, keys.shape[2], every, len(known), scale,
    )  # fmt: skip
    return torch.bmm(scores, values).view(queries.shape)


class _Prompts:
    def __init__(self, angles: torch.Tensor) -> None:
        self._angles = angles.float().contiguous()
        self._known = torch.arange(1, angles.shape[1] + 1)
        self._queries = torch.empty(0)
        self._call = _Call(angles=self._angles.data_ptr())

    def __call__(self, heads: Heads, projected: torch.Tensor, held: torch.Tensor) -> torch.Tensor:
        projected = projected.contiguous()
        rows, positions = projected.shape[:2]
        if not self._call.out:
            self._queries = held.new_empty(rows, heads.queries, positions, heads.size)
            self._call.describe(heads, projected, held, self._queries)
        self._call.point_to(heads, projected, held)
        library.turn(ctypes.byref(self._call))
        if can_attend(self._queries, positions):
            answers = attended(self._queries, held[0], held[1], self._known, heads.size**-0.5, causal=True)
        else:
            answers = scaled_dot_product_attention(self._queries, held[0], held[1], is_causal=True, enable_gqa=True)
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
    rows: torch.Tensor, largest: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor, shift: torch.Tensor
) -> torch.Tensor:
    """What `dequantized` gives of the sums of x Wᵀ, for a few rows as `quantized` gives them.

    `scales` (outputs,); `shift` (outputs,): the sums of an output's weights times 128, in int32.
    """
    out = largest.new_empty(len(rows), len(weight))
    _call(
        library.multiply_bytes,
        rows=rows, weight=weight, largest=largest, scales=scales, shift=shift, out=out, count=len(rows),
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
