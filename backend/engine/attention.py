"""How a token of every row attends, itself included, to what its row has said: one object a step, called by each layer.

- `Plain`: torch's operations, on every device; what can be recorded.
- `Compiled`: the same in one call (engine/attention.c), on CPUs where install.sh found a C compiler. 28 layers of the
  0.6B with 224 slots, two cores: one row takes 1.2 ms instead of 4.4, eight rows 9 instead of 21.

Both write the token's keys and values into the cache, in the slot that `lengths` names.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch.nn.functional import rms_norm

_log = logging.getLogger(__name__)

_LIBRARY, _SOURCE = (Path(__file__).with_name(name) for name in ("libattention.so", "attention.c"))
_MOST_SHARING, _MOST_SIZE, _LANES = 16, 256, 8  # as in attention.c
_DTYPES = {torch.float32, torch.bfloat16}


@dataclass(frozen=True, eq=False)
class Heads:
    """The heads of a layer, side by side in what it projects: queries, keys, and values in the number of the keys.

    `norm`: (queries + keys, size), which are normalised and rotated together.
    """

    queries: int
    keys: int
    size: int
    norm: torch.Tensor
    epsilon: float

    @cached_property
    def norm_as_float(self) -> torch.Tensor:
        return self.norm.float().contiguous()

    def apart(self, projected: torch.Tensor, angles: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values, (rows, positions, heads, size), rotated to their positions.

        `angles`: cosine and sine, (2, rows or 1, positions, size).
        """
        heads = projected.view(*projected.shape[:2], -1, self.size)
        turning, values = torch.split(heads, [self.queries + self.keys, self.keys], dim=-2)
        turning = rms_norm(turning, turning.shape[-1:], eps=self.epsilon) * self.norm
        cosine, sine = angles.unsqueeze(-2)
        first, second = turning.chunk(2, dim=-1)
        turned = turning * cosine + torch.cat((-second, first), dim=-1) * sine
        queries, keys = torch.split(turned, [self.queries, self.keys], dim=-2)
        return queries, keys, values


# (a layer's heads, what it projects (rows, 1, …), its cache (2, rows, key heads, slots, size)) -> (rows, 1, …)
Attend: TypeAlias = Callable[[Heads, torch.Tensor, torch.Tensor], torch.Tensor]
Attention: TypeAlias = Callable[[torch.Tensor, torch.Tensor], Attend]  # (lengths, angles), as `Plain` takes them


class Plain:
    """`lengths` (rows,): slots in use; `angles`: cosine and sine of each row's position, (2, rows, size)."""

    def __init__(self, lengths: torch.Tensor, angles: torch.Tensor) -> None:
        self._rows = torch.arange(len(lengths), device=lengths.device)
        self._lengths = lengths
        self._angles = angles[:, :, None]
        self._mask: torch.Tensor | None = None  # one for all layers

    def __call__(self, heads: Heads, projected: torch.Tensor, held: torch.Tensor) -> torch.Tensor:
        if self._mask is None:
            self._mask = _mask(self._lengths, held, heads.queries // heads.keys)
        queries, keys, values = heads.apart(projected, self._angles)
        held[0, self._rows, :, self._lengths] = keys[:, 0].to(held.dtype)
        held[1, self._rows, :, self._lengths] = values[:, 0].to(held.dtype)
        return _attended(queries[:, 0], held, self._mask).to(projected.dtype)


def _mask(lengths: torch.Tensor, held: torch.Tensor, sharing: int) -> torch.Tensor:
    """What keeps rows of these lengths from slots they have not written, for `_attended`: 0 or -inf.

    (rows · key heads, heads that share a key head, slots), in the dtype to attend in. On a CPU that is float32 for one
    row: its products are too small for what oneDNN prepares for each one in sixteen bits.
    """
    _, rows, key_heads, slots, _ = held.shape
    dtype = torch.float32 if rows == 1 and held.device.type == "cpu" else held.dtype
    unused = torch.arange(slots, device=held.device) > lengths[:, None]
    mask = torch.zeros_like(unused, dtype=dtype).masked_fill_(unused, -torch.inf)
    return mask[:, None, None].expand(rows, key_heads, sharing, slots).reshape(-1, sharing, slots)


def _attended(queries: torch.Tensor, held: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """One query for each head (rows, heads, size) over a layer's cache.

    Two products over every slot, used or not: neither the slots in use nor a key head for each of its queries is copied
    to be multiplied. For eight rows in bf16 torch's flash attention on CPUs takes a third longer.
    """
    _, rows, key_heads, slots, size = held.shape
    keys, values = held.view(2, rows * key_heads, slots, size).to(mask.dtype)
    asked = queries.reshape(rows * key_heads, -1, size).to(mask.dtype)
    scores = torch.baddbmm(mask, asked, keys.transpose(1, 2), alpha=size**-0.5)
    return torch.bmm(scores.softmax(dim=-1), values).view(rows, 1, -1)


class _Step(ctypes.Structure):
    """`Step` of attention.c, where each field is explained."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("projected", "norm", "angles", "keys", "values", "lengths", "out")),
        *((name, ctypes.c_int64) for name in ("rows", "heads", "key_heads", "slots", "size")),
        ("epsilon", ctypes.c_float),
        ("flow_is_16", ctypes.c_int),
        ("cache_is_16", ctypes.c_int),
        ("version", ctypes.c_int),
    )


class Compiled:
    """The same as `Plain`, where `can_compile` says so."""

    def __init__(self, lengths: torch.Tensor, angles: torch.Tensor) -> None:
        self._lengths = lengths
        self._angles = angles.float().contiguous()
        self._out = torch.empty(0)
        self._step = _Step(
            lengths=lengths.data_ptr(), angles=self._angles.data_ptr(), rows=len(lengths), version=_version
        )

    def __call__(self, heads: Heads, projected: torch.Tensor, held: torch.Tensor) -> torch.Tensor:
        step, projected = self._step, projected.contiguous()
        if not step.out:
            self._begin(heads, projected, held)
        step.projected = projected.data_ptr()
        step.norm = heads.norm_as_float.data_ptr()
        step.keys = held.data_ptr()
        step.values = step.keys + held.stride(0) * held.itemsize
        _compiled.attend(ctypes.byref(step))
        return self._out

    def _begin(self, heads: Heads, projected: torch.Tensor, held: torch.Tensor) -> None:
        """What is the same in all layers. The output is, too: a layer is done with it when the next one attends."""
        rows, step = len(self._lengths), self._step
        self._out = projected.new_empty(rows, 1, heads.queries * heads.size)
        step.out = self._out.data_ptr()
        step.heads, step.key_heads, step.size, step.epsilon = heads.queries, heads.keys, heads.size, heads.epsilon
        step.slots = held.shape[3]
        step.flow_is_16, step.cache_is_16 = (tensor.dtype is torch.bfloat16 for tensor in (projected, held))


def attention_for(heads: Heads, kept: torch.Tensor) -> Attention:
    """The faster one that can be had."""
    if _compiled is None and kept.device.type == "cpu":
        _log.info("attention is not compiled; where install.sh finds gcc, a token takes up to a quarter less")
    return Compiled if can_compile(heads, kept) else Plain


def can_compile(heads: Heads, kept: torch.Tensor) -> bool:
    """Whether `Compiled` can attend with such heads to keys and values of the device and the dtype of `kept`."""
    return (
        _compiled is not None
        and kept.device.type == "cpu"
        and {kept.dtype, heads.norm.dtype} <= _DTYPES
        and heads.queries % heads.keys == 0
        and heads.queries // heads.keys <= _MOST_SHARING
        and heads.size % _LANES == 0
        and heads.size <= _MOST_SIZE
    )


def _loaded(library: Path, source: Path = _SOURCE) -> Any:
    """Our own library; None where there is none, or one that fits neither this machine nor what is called here."""
    if not library.exists():
        return None
    try:
        loaded = ctypes.CDLL(str(library))
        if ctypes.c_char_p.in_dll(loaded, "source").value == _digest(source):
            return loaded
        cause = "it is not of this version"
    except (OSError, ValueError) as error:  # of another kind of machine; without what we ask for
        cause = str(error)
    _log.warning("%s is not used (%s); remove it and run install.sh", library.name, cause)
    return None


def _digest(source: Path) -> bytes:
    return hashlib.sha256(source.read_bytes()).hexdigest().encode()


_compiled = _loaded(_LIBRARY)  # after torch, whose OpenMP it shares
_version: int = _compiled.most_capable() if _compiled else 0
