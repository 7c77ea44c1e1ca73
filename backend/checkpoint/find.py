"""Finds the checkpoint that a model's name means, and checks its kind before any weights are read.

Rules: a checkpoint on disk is loaded offline. A name is a hub repository only if no path on disk has it. Any model but
Qwen3-ASR and Qwen3-ForcedAligner is refused by name, because the gateway probes backends with foreign models; of one on
the hub, config.json alone is fetched for that.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.checkpoint import hub
from backend.checkpoint.layout import EXAMPLES, Kind, layout_of
from backend.checkpoint.validation import read_json_object, validate, validate_object
from backend.errors import CheckpointRefused, named

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# What a folder without config.json may hold instead.
_OTHER_FORMS = {
    "adapter_config.json": "an adapter (LoRA) without its model; merge the two",
    "*.gguf": "GGUF weights, which are for llama.cpp",
    "*.onnx": "ONNX graphs",
}
_KIND_NAMES = {"recognizer": "a Qwen3-ASR model", "aligner": "a Qwen3-ForcedAligner model"}
_REMEDIES = {
    "recognizer": f"name it in the option forced_aligner, and {EXAMPLES['recognizer']} as the model",
    "aligner": f"name a Qwen3-ForcedAligner in the option forced_aligner, such as {EXAMPLES['aligner']}",
}


@dataclass(frozen=True)
class Checkpoint:
    """`name`: a folder if `local`, else a hub repository."""

    name: str
    local: bool


def find(name: str, *, file: str = "", folder: str = "") -> Checkpoint:
    """The first of these that exists: the path `file`, the path `name`, `name` under `folder`, `name` on the hub.

    Raises CheckpointRefused.
    """
    if not name:
        raise CheckpointRefused("no model is named; set the model's `parameters.model` to a Qwen3-ASR checkpoint")
    for path in (Path(file) if file else None, Path(name), Path(folder) / name if folder else None):
        if path is None or not os.path.exists(path):  # noqa: PTH110 - Path.exists raises if a name is too long
            continue
        if path.is_file():  # the gateway may name the weights: the checkpoint is their folder
            path = path.parent
        if (path / "config.json").is_file():
            return Checkpoint(str(path), local=True)
        if path.is_absolute() or file:
            raise CheckpointRefused(f"the model folder {_lack_of_config(path)}, as {EXAMPLES['recognizer']} has")
    if _HUB_ID.fullmatch(name):
        return Checkpoint(name, local=False)
    raise CheckpointRefused(
        f"'{named(name)}' is neither a folder with a checkpoint nor a hub id such as Qwen/Qwen3-ASR-0.6B"
    )


def inspect(checkpoint: Checkpoint, kind: Kind, weights: bool = True) -> None:
    """Raise CheckpointRefused if the checkpoint is not of `kind`, by its config.json, or if a local one is incomplete.

    `weights`: whether it needs them. All small JSON files of a local checkpoint are validated, of one on the hub
    config.json alone.
    """
    config = _config(checkpoint)
    actual = layout_of(checkpoint.name, config, kind).kind
    if actual != kind:
        raise CheckpointRefused(
            f"the checkpoint '{named(checkpoint.name)}' is {_KIND_NAMES[actual]}; {_REMEDIES[kind]}"
        )
    if checkpoint.local:
        validate(Path(checkpoint.name))
    else:
        validate_object("config.json", config)
    if weights and checkpoint.local and not any(Path(checkpoint.name).glob("*.safetensors")):
        raise CheckpointRefused(
            f"the checkpoint '{named(checkpoint.name)}' holds no .safetensors weights; fetch those of {EXAMPLES[kind]}"
        )


def _config(checkpoint: Checkpoint) -> dict[str, Any]:
    path = Path(checkpoint.name) / "config.json" if checkpoint.local else hub.fetch_config(checkpoint.name)
    return read_json_object(path)


def _lack_of_config(folder: Path) -> str:
    """What a folder without config.json is, as far as the names in it say."""
    for pattern, form in _OTHER_FORMS.items():
        if any(folder.glob(pattern)):
            return f"holds {form}; this backend needs config.json and .safetensors weights"
    return "has no config.json; it must hold all files of a checkpoint"
