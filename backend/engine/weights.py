"""Weights straight from their files into the numbers and onto the device that they are computed in.

A model is built without any, and every tensor is read when it is needed: nothing is held twice, whatever the files'
dtype is. The files are mapped; a mapping is given up after 64 megabytes, because what was touched of it counts as this
process's memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import torch
from safetensors import safe_open
from torch import nn

from backend.engine.ops.device import Placement
from backend.errors import CheckpointRefused, named

_INDEX, _WHOLE = "model.safetensors.index.json", "model.safetensors"
_MAPPED_AT_A_TIME = 1 << 26  # bytes
_FLOATS = ("F64", "F32", "BF16", "F16")  # the others are somebody's quantisation, and numbers of another meaning


class Weights:
    """The tensors of a checkpoint's folder, for a model whose parameters are on torch's `meta` device."""

    def __init__(self, folder: Path, model: nn.Module, placement: Placement) -> None:
        """Raises CheckpointRefused where files lack a parameter or hold it in another shape. Reads no tensor."""
        self._placement = placement
        self._files = _files(folder)
        self._names = {id(parameter): name for name, parameter in model.named_parameters()}
        # by the empty one's id, so that tied weights stay one; weak, because the decoder replaces most of them
        self._filled: WeakValueDictionary[int, nn.Parameter] = WeakValueDictionary()
        self._lent = torch.empty(0)
        self._borrowers: Sequence[nn.Linear] = ()
        self._open = ExitStack()
        self._mapped: dict[Path, Any] = {}
        self._bytes = 0
        for name, parameter in model.named_parameters():
            if name not in self._files or self._shape(name) != list(parameter.shape):
                raise CheckpointRefused("the checkpoint lacks weights or holds others than its config says")
            if self._file(name).get_slice(name).get_dtype() not in _FLOATS:
                raise CheckpointRefused("the checkpoint's weights are quantised in a way that is not known here")

    def fill(self, modules: Iterable[nn.Module]) -> None:
        """Read the parameters of these modules that have not been read."""
        for module in modules:
            for part in module.modules():
                for key, parameter in part.named_parameters(recurse=False):
                    if parameter.is_meta:
                        setattr(part, key, self._filled_as(parameter))

    def lend(self, modules: Sequence[nn.Linear]) -> None:
        """As `fill`, but one weight behind the other, in memory that the next call takes again.

        Unless they have it still: it is for layers of which something else is made. Fresh pages for each would take as
        long as reading and packing them (0.6B in bf16: 4.8 s for 2.6).
        """
        empty = [module.weight for module in modules]
        if all(weight.is_meta and id(weight) not in self._filled for weight in empty):
            sizes = [weight.numel() for weight in empty]
            parts = torch.split(self._memory(sum(sizes)), sizes)
            for module, weight, part in zip(modules, empty, parts, strict=True):
                read = self._read(self._names[id(weight)], part.view(weight.shape))
                module.weight = nn.Parameter(read, requires_grad=False)
            self._borrowers = modules
        self.fill(modules)

    def _memory(self, numbers: int) -> torch.Tensor:
        """(numbers,): what was lent before, if it suffices and has been given back."""
        if self._lent.numel() < numbers or any(module.weight.numel() for module in self._borrowers):
            self._lent = torch.empty(0)  # before there is another
            self._lent = self._new(numbers)
        return self._lent[:numbers]

    def _filled_as(self, empty: nn.Parameter) -> nn.Parameter:
        filled = self._filled.get(id(empty))
        if filled is None:
            filled = nn.Parameter(self._read(self._names[id(empty)], self._new(*empty.shape)), requires_grad=False)
            self._filled[id(empty)] = filled
        return filled

    def _new(self, *shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=self._placement.dtype, device=self._placement.device)

    def close(self) -> None:
        """Give the files up, and what was lent."""
        self._unmap()
        self._lent, self._borrowers = torch.empty(0), ()

    def _unmap(self) -> None:
        self._mapped.clear()
        self._open.close()
        self._bytes = 0

    def _read(self, name: str, read: torch.Tensor) -> torch.Tensor:
        """A tensor of the files, read into the given one."""
        rows = read.reshape(1) if not read.ndim else read
        step = max(1, _MAPPED_AT_A_TIME * len(rows) // max(rows.numel() * 4, 1))
        for at in range(0, len(rows), step):  # an embedding is larger than all that may be mapped
            part = self._file(name).get_slice(name)[at : at + step] if read.ndim else self._file(name).get_tensor(name)
            rows[at : at + step].copy_(part)
            if not torch.isfinite(torch.stack(torch.aminmax(rows[at : at + step]))).all():  # in one pass over them
                raise CheckpointRefused(
                    f"the checkpoint's weights '{named(name)}' hold values that are no numbers, or too large for "
                    f"{str(self._placement.dtype).removeprefix('torch.')}; fetch it again, or set torch_dtype"
                )
            self._bytes += part.numel() * part.element_size()
            del part
            if self._bytes > _MAPPED_AT_A_TIME:
                self._unmap()
        return read

    def _shape(self, name: str) -> list[int]:
        shape: list[int] = self._file(name).get_slice(name).get_shape()
        return shape

    def _file(self, name: str) -> Any:
        path = self._files[name]
        if path not in self._mapped:
            self._mapped[path] = self._open.enter_context(safe_open(path, framework="pt"))
        return self._mapped[path]


def _files(folder: Path) -> dict[str, Path]:
    """In which file each tensor is. Raises CheckpointRefused where there are none, or no such files."""
    if (folder / _INDEX).is_file():
        try:
            listed = json.loads((folder / _INDEX).read_text(encoding="utf-8"))["weight_map"]
            files = {str(name): folder / Path(file).name for name, file in listed.items()}
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise CheckpointRefused(f"{_INDEX} of the checkpoint cannot be read") from error
    elif (folder / _WHOLE).is_file():
        with safe_open(folder / _WHOLE, framework="pt") as whole:
            files = dict.fromkeys(whole.keys(), folder / _WHOLE)
    else:
        files = {}
    if not files or not all(file.is_file() for file in set(files.values())):
        raise CheckpointRefused("the checkpoint's safetensors files are missing or incomplete; fetch it again")
    for file in set(files.values()):
        _refuse_doubles(file)
    return files


def _refuse_doubles(file: Path) -> None:
    """safetensors takes the last of two tensors of one name; which of them is meant, nobody knows."""
    with safe_open(file, framework="pt"), file.open("rb") as opened:  # it has checked the length that is believed here
        header = opened.read(int.from_bytes(opened.read(8), "little"))

    def once(pairs: list[tuple[str, Any]]) -> None:
        if len({name for name, _ in pairs}) < len(pairs):
            raise CheckpointRefused("a safetensors file of the checkpoint holds a tensor twice; fetch it again")

    json.loads(header, object_pairs_hook=once)
