"""Finding a checkpoint and looking at it before any weights are read.

Rules: what lies on disk is loaded offline; a name is a hub repository only if nothing on disk answers to it; whatever
is not Qwen3-ASR or Qwen3-ForcedAligner is refused by name, since the gateway probes backends with foreign models.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from backend.checkpoint import hub
from backend.checkpoint.validation import read_object, validate, vet_object
from backend.errors import CheckpointRefused, named

Kind = Literal["recognizer", "aligner"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_KIND_NAMES = {"recognizer": "a Qwen3-ASR model", "aligner": "a Qwen3-ForcedAligner model"}


@dataclass(frozen=True)
class Checkpoint:
    """`name`: a folder, or a hub repository where `local` is False."""

    name: str
    local: bool


def find(name: str, *, file: str = "", folder: str = "") -> Checkpoint:
    """The checkpoint that `name` means: the path `file`, `name` itself, `name` under `folder`, or the hub's."""
    if not name:
        raise CheckpointRefused("no model is named; set the model's `parameters.model` to a Qwen3-ASR checkpoint")
    for path in (Path(file) if file else None, Path(name), Path(folder) / name if folder else None):
        if path is None or not os.path.exists(path):  # noqa: PTH110 - Path.exists raises on names that are too long
            continue
        if path.is_file():  # the gateway may name the weights; the checkpoint is the folder around them
            path = path.parent
        if (path / "config.json").is_file():
            return Checkpoint(str(path), local=True)
        if path.is_absolute() or file:
            raise CheckpointRefused("the model folder has no config.json; it must hold a whole checkpoint")
    if _HUB_ID.fullmatch(name):
        return Checkpoint(name, local=False)
    raise CheckpointRefused(
        f"'{named(name)}' is neither a folder with a checkpoint nor a hub id such as Qwen/Qwen3-ASR-0.6B"
    )


def inspect(checkpoint: Checkpoint, kind: Kind) -> None:
    """Refuse a checkpoint that is not of `kind`, by its config.json alone; of local ones also without weights."""
    config = _config(checkpoint)
    found = _kind(config)
    if found != kind:
        what = _KIND_NAMES.get(found, f"of the type '{named(found)}'")
        remedy = (
            "name it in the option forced_aligner" if found == "aligner" else f"this backend needs {_KIND_NAMES[kind]}"
        )
        raise CheckpointRefused(f"the checkpoint '{named(checkpoint.name)}' is {what}; {remedy}")
    if checkpoint.local:
        validate(Path(checkpoint.name))
    else:
        vet_object("config.json", config)
    if checkpoint.local and not any(Path(checkpoint.name).glob("*.safetensors")):
        raise CheckpointRefused(f"the checkpoint '{named(checkpoint.name)}' holds no .safetensors weights")


def _config(checkpoint: Checkpoint) -> dict[str, Any]:
    path = Path(checkpoint.name) / "config.json" if checkpoint.local else hub.fetch_config(checkpoint.name)
    return read_object(path)


def _kind(config: dict[str, Any]) -> str:
    if config.get("model_type") != "qwen3_asr":
        return str(config.get("model_type"))
    thinker = config.get("thinker_config")
    thinker_type = thinker.get("model_type", "") if isinstance(thinker, dict) else ""
    return "aligner" if "forced_aligner" in str(thinker_type) else "recognizer"
