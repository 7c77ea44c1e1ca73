"""Reads weights from a checkpoint's safetensors files straight into their final dtype and device.

The model is built without weights, and each tensor is read when it is needed, so none is in memory twice, whatever the
files' dtype is. The files are memory-mapped. A mapping is closed after 64 MiB, because the pages that were read count
as this process's memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import torch
from safetensors import safe_open
from torch import nn

from backend.checkpoint.files import INDEX, SINGLE_FILE
from backend.engine.ops.device import Placement
from backend.errors import CheckpointRefused, NonFiniteCheckpoint, named

_MAX_MAPPED_BYTES = 1 << 26
_FLOATS = ("F64", "F32", "BF16", "F16")  # any other dtype is a quantisation, and its numbers need scales


class Weights:
    """The tensors of a checkpoint's folder, for a model whose parameters are on torch's `meta` device."""

    def __init__(
        self, folder: Path, model: nn.Module, placement: Placement, stored_name: Callable[[str], str] = str
    ) -> None:
        """Raises CheckpointRefused where files lack a parameter or hold it in another shape. Reads no tensor.

        `stored_name`: the name in the files of the model's parameter of that name.
        """
        self._placement = placement
        self._files = _tensor_files(folder)
        self._names = {id(parameter): stored_name(name) for name, parameter in model.named_parameters()}
        # By the id of the parameter on `meta`, so that tied weights stay one tensor. Weak, because the decoder's layers
        # replace most of them.
        self._filled: WeakValueDictionary[int, nn.Parameter] = WeakValueDictionary()
        self._scratch = torch.empty(0)
        self._scratch_users: Sequence[nn.Linear] = ()
        self._open_files = ExitStack()
        self._mapped: dict[Path, Any] = {}
        self._mapped_bytes = 0
        for parameter in model.parameters():
            name = self._names[id(parameter)]
            if name not in self._files or self._shape(name) != list(parameter.shape):
                raise CheckpointRefused("the checkpoint lacks weights or holds others than its config says")
            if self._file(name).get_slice(name).get_dtype() not in _FLOATS:
                raise CheckpointRefused("the checkpoint's weights are quantised in a way that is not known here")

    def fill(self, modules: Iterable[nn.Module]) -> None:
        """Read the parameters of these modules that have not been read yet."""
        for module in modules:
            for part in module.modules():
                for key, parameter in part.named_parameters(recurse=False):
                    if parameter.is_meta:
                        setattr(part, key, self._load_parameter(parameter))

    def fill_in_scratch(self, modules: Sequence[nn.Linear]) -> None:
        """As `fill`, with the weights one after the other in scratch memory, for layers that are packed or quantised.

        The next call reuses the memory, unless a module still has its weight there. Fresh pages for each layer would
        take as long as reading and packing it (0.6B in bf16: 4.8 s instead of 2.6).
        """
        weights = [module.weight for module in modules]
        if all(weight.is_meta and id(weight) not in self._filled for weight in weights):
            sizes = [weight.numel() for weight in weights]
            parts = torch.split(self._scratch_of(sum(sizes)), sizes)
            for module, weight, part in zip(modules, weights, parts, strict=True):
                filled = self._read_tensor(self._names[id(weight)], part.view(weight.shape))
                module.weight = nn.Parameter(filled, requires_grad=False)
            self._scratch_users = modules
        self.fill(modules)

    def close(self) -> None:
        """Close the files and give up the scratch memory."""
        self._unmap()
        self._scratch, self._scratch_users = torch.empty(0), ()

    def _scratch_of(self, elements: int) -> torch.Tensor:
        """(elements,): the memory of the last call if it is large enough and no longer in use."""
        if self._scratch.numel() < elements or any(module.weight.numel() for module in self._scratch_users):
            self._scratch = torch.empty(0)  # freed before the new memory is allocated
            self._scratch = self._allocate(elements)
        return self._scratch[:elements]

    def _load_parameter(self, empty: nn.Parameter) -> nn.Parameter:
        filled = self._filled.get(id(empty))
        if filled is None:
            tensor = self._read_tensor(self._names[id(empty)], self._allocate(*empty.shape))
            filled = nn.Parameter(tensor, requires_grad=False)
            self._filled[id(empty)] = filled
        return filled

    def _allocate(self, *shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=self._placement.dtype, device=self._placement.device)

    def _read_tensor(self, name: str, out: torch.Tensor) -> torch.Tensor:
        """Read a tensor of the files into `out`. Raises NonFiniteCheckpoint where a value is not finite there."""
        rows = out.reshape(1) if not out.ndim else out
        step = max(1, _MAX_MAPPED_BYTES * len(rows) // max(rows.numel() * 4, 1))
        for start in range(0, len(rows), step):  # in parts: an embedding is larger than what may be mapped
            file = self._file(name)
            part = file.get_slice(name)[start : start + step] if out.ndim else file.get_tensor(name)
            target = rows[start : start + step]
            target.copy_(part)
            if not torch.isfinite(torch.stack(torch.aminmax(target))).all():  # aminmax: one pass over the part
                raise NonFiniteCheckpoint(
                    f"the checkpoint's weights '{named(name)}' hold values that are no numbers, or too large for "
                    f"{str(self._placement.dtype).removeprefix('torch.')}; fetch it again, or set torch_dtype"
                )
            self._mapped_bytes += part.numel() * part.element_size()
            del part, file
            if self._mapped_bytes > _MAX_MAPPED_BYTES:
                self._unmap()
        return out

    def _unmap(self) -> None:
        self._mapped.clear()
        self._open_files.close()
        self._mapped_bytes = 0

    def _shape(self, name: str) -> list[int]:
        shape: list[int] = self._file(name).get_slice(name).get_shape()
        return shape

    def _file(self, name: str) -> Any:
        path = self._files[name]
        if path not in self._mapped:
            self._mapped[path] = self._open_files.enter_context(safe_open(path, framework="pt"))
        return self._mapped[path]


def _tensor_files(folder: Path) -> dict[str, Path]:
    """The file of each tensor, by its name. Raises CheckpointRefused where a file is missing or its header is wrong."""
    if (folder / INDEX).is_file():
        try:
            weight_map = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
            files = {str(name): folder / Path(file).name for name, file in weight_map.items()}
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise CheckpointRefused(f"{INDEX} of the checkpoint cannot be read") from error
    elif (folder / SINGLE_FILE).is_file():
        with safe_open(folder / SINGLE_FILE, framework="pt") as opened:
            files = dict.fromkeys(opened.keys(), folder / SINGLE_FILE)
    else:
        files = {}
    if not files or not all(file.is_file() for file in set(files.values())):
        raise CheckpointRefused("the checkpoint's safetensors files are missing or incomplete; fetch it again")
    for file in set(files.values()):
        _refuse_duplicates(file)
    return files


def _refuse_duplicates(file: Path) -> None:
    """Raises CheckpointRefused where a tensor's name occurs twice: safetensors would take the last one unasked."""
    with safe_open(file, framework="pt"), file.open("rb") as raw:  # safe_open has checked the header's length
        header = raw.read(int.from_bytes(raw.read(8), "little"))

    def refuse_duplicate_keys(pairs: list[tuple[str, Any]]) -> None:
        if len({name for name, _ in pairs}) < len(pairs):
            raise CheckpointRefused("a safetensors file of the checkpoint holds a tensor twice; fetch it again")

    json.loads(header, object_pairs_hook=refuse_duplicate_keys)
