"""The files that a checkpoint needs, and what is wrong with those in a folder: each by its name.

Read are sizes, first and last bytes, and the headers of safetensors files; whoever uses a file reads the rest. Names
are those of a fixed list, or those that the index of the weights gives.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from backend.errors import CheckpointRefused, named
from backend.process.machine.system_cause import system_cause

INDEX, SINGLE_FILE = "model.safetensors.index.json", "model.safetensors"
_TOKENIZER, _TOKENIZER_PARTS = "tokenizer.json", ("vocab.json", "merges.txt")
_FEATURES = ("preprocessor_config.json", "processor_config.json")
_SMALL_FILES = (
    "config.json", "generation_config.json", *_FEATURES, _TOKENIZER, *_TOKENIZER_PARTS, "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "chat_template.json", INDEX,
)  # fmt: skip
# How files begin that stand for others in a clone: those of git-lfs, and of Xet's own git extension.
_POINTERS = (b"version https://git-lfs.github.com/spec/", b"# xet version")
_MAX_HEADER_BYTES = 100_000_000  # as the safetensors library has it
_MAX_INDEX_BYTES = 1 << 26
_TAIL_BYTES = 4096  # white space that may follow the end of a JSON file
_MOST_NAMED = 3


def check(folder: Path, *, weights: bool = True) -> None:
    """Raise CheckpointRefused if a file that the checkpoint in `folder` needs is missing, cut short or a pointer.

    `weights`: whether it needs those.
    """
    found = list(faults(folder, needs_weights=weights))
    if found:
        more = f"; and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
        raise CheckpointRefused(f"the checkpoint is not whole: {'; '.join(found[:_MOST_NAMED])}{more}; fetch it again")


def faults(folder: Path, *, needs_weights: bool = True) -> Iterator[str]:
    """What is wrong with each file, in words that name it."""
    weights = sorted(weight_files(folder)) if needs_weights else []
    for name in _missing(folder, weights):
        yield f"{named(name)} is missing"
    for name in (*_SMALL_FILES, *weights):
        fault = fault_of(folder / name) if os.path.lexists(folder / name) else ""
        if fault:
            yield f"{named(name)} {fault}"


def fault_of(path: Path) -> str:
    """What is wrong with a file that is there, such as `is empty`; "" if nothing is seen."""
    try:
        with path.open("rb") as file:
            return _fault_in(path, file, os.fstat(file.fileno()).st_size)
    except FileNotFoundError:
        return "is a link to a file that is not there"
    except OSError as error:
        return f"does not open ({system_cause(error)})"


def weight_files(folder: Path) -> set[str]:
    """The names of the files that hold the weights; none where the index has a fault."""
    index = folder / INDEX
    if not os.path.lexists(index):
        return {SINGLE_FILE}
    try:
        if fault_of(index) or index.stat().st_size > _MAX_INDEX_BYTES:
            return set()
        return {Path(str(shard)).name for shard in json.loads(index.read_bytes())["weight_map"].values()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):  # engine/weights.py refuses it
        return set()


def _missing(folder: Path, weights: list[str]) -> Iterator[str]:
    def lacks(name: str) -> bool:
        return not os.path.lexists(folder / name)

    if lacks(_TOKENIZER):
        parts = [name for name in _TOKENIZER_PARTS if lacks(name)]
        yield from parts if len(parts) < len(_TOKENIZER_PARTS) else [f"{_TOKENIZER} (or vocab.json and merges.txt)"]
    if all(map(lacks, _FEATURES)):
        yield _FEATURES[0]
    yield from filter(lacks, weights)


def _fault_in(path: Path, file: BinaryIO, size: int) -> str:
    begin = file.read(max(map(len, _POINTERS)))
    if begin.startswith(_POINTERS):
        return "is a git-lfs pointer and not the file itself (run `git lfs pull` in its folder)"
    if not size:
        return "is empty"
    file.seek(0)
    if path.suffix == ".safetensors":
        return _weights_fault(file, size)
    file.seek(max(0, size - _TAIL_BYTES))
    if path.suffix == ".json" and not file.read().rstrip(b" \t\r\n\0").endswith((b"}", b"]")):
        return f"is cut short: its {size} bytes do not end as JSON does"
    return ""


def _weights_fault(file: BinaryIO, size: int) -> str:
    length = int.from_bytes(file.read(8), "little")
    if length > min(size - 8, _MAX_HEADER_BYTES):
        return f"is cut short or damaged: its {size} bytes do not hold its header"
    try:
        header = json.loads(file.read(length))
        ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
        needed = 8 + length + max(ends, default=0)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return "is damaged: its header cannot be read"
    return f"is cut short: it has {size} bytes of {needed}" if size < needed else ""
