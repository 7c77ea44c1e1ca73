"""Finds the checkpoint that a model's name means, and checks its kind before any weights are read.

Rules: a checkpoint on disk is loaded offline. A name is a hub repository only if no path on disk has it. Any model but
Qwen3-ASR and Qwen3-ForcedAligner is refused by name, because the gateway probes backends with foreign models; of one on
the hub, config.json alone is fetched for that.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import stat
from dataclasses import dataclass, field, replace
from pathlib import Path

from backend.checkpoint import hub
from backend.checkpoint.files import check
from backend.checkpoint.layout import EXAMPLES, Kind, layout_of
from backend.checkpoint.validation import read_json_object, validate, validate_object
from backend.errors import CheckpointRefused, named
from backend.process.machine.system_cause import system_cause

_log = logging.getLogger(__name__)

_BARRED = "cannot be read"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
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
    """`name`: a folder if `local`, else a hub repository, of which `revision` is a branch, a tag or a commit.

    `kind`: what was inspected; None before that.
    """

    name: str
    local: bool
    revision: str = hub.MAIN
    kind: Kind | None = field(default=None, compare=False)


def find(name: str, *, file: str = "", folder: str = "", revision: str = hub.MAIN) -> Checkpoint:
    """The first of these that exists: the path `file`, the path `name`, `name` under `folder`, `name` on the hub.

    `revision`: of the repository. Raises CheckpointRefused.
    """
    if not name:
        raise CheckpointRefused("no model is named; set the model's `parameters.model` to a Qwen3-ASR checkpoint")
    barred = ""
    for path in (Path(file) if file else None, Path(name), Path(folder) / name if folder else None):
        obstacle = _obstacle(path) if path else "is not named"
        if path is None or obstacle:
            barred = barred or (f"the folder {obstacle}" if obstacle.startswith(_BARRED) else "")
            continue
        if path.is_file():  # the gateway may name the weights: the checkpoint is their folder
            path = path.parent
        if os.path.lexists(path / "config.json"):
            if revision != hub.MAIN:
                _log.info("the option for a revision is for hub ids; it changes nothing for a folder")
            return Checkpoint(str(path), local=True)
        if path.is_absolute() or file:
            raise CheckpointRefused(f"the model folder {lack_of_config(path)}, as {EXAMPLES['recognizer']} has")
    if HUB_ID.fullmatch(name):
        if barred:
            _log.warning("%s; the hub is asked instead", barred)
        return Checkpoint(name, local=False, revision=revision)
    raise CheckpointRefused(
        f"'{named(name)}' is neither a folder with a checkpoint nor a hub id such as Qwen/Qwen3-ASR-0.6B"
        + (f": {barred}" if barred else "")
    )


def _obstacle(path: Path) -> str:
    """Why nothing is found at the path; "" if something is."""
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            with contextlib.suppress(FileNotFoundError):
                (path / "config.json").lstat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL byte
        return "is not there"
    except OSError as error:
        return "is not there" if error.errno == errno.ENAMETOOLONG else f"{_BARRED} ({system_cause(error)})"
    return ""


def inspect(checkpoint: Checkpoint, kind: Kind | None, *, weights: bool = True) -> Checkpoint:
    """The checkpoint that is to be loaded, with its kind by its config.json. `kind` None: either will do.

    `weights`: whether it needs them. Raises CheckpointRefused if it is not of `kind`, or if a local one is incomplete.
    All small JSON files of a local checkpoint are validated, of one on the hub config.json alone. To be loaded is the
    commit whose config.json was read, or its folder if the hub is out of reach and all of it is here.
    """
    if not checkpoint.local:
        snapshot = hub.fetch_config(checkpoint.name, checkpoint.revision)
        checkpoint = replace(checkpoint, revision=snapshot.commit)
        if snapshot.is_whole:
            checkpoint = Checkpoint(str(snapshot.folder), local=True)
        config = read_json_object(snapshot.folder / "config.json")
    else:
        config = read_json_object(Path(checkpoint.name) / "config.json")
    actual = layout_of(checkpoint.name, config, kind or "recognizer").kind
    checkpoint = replace(checkpoint, kind=actual)
    if kind is not None and actual != kind:
        raise CheckpointRefused(
            f"the checkpoint '{named(checkpoint.name)}' is {_KIND_NAMES[actual]}; {_REMEDIES[kind]}"
        )
    if not checkpoint.local:
        validate_object("config.json", config)
        return checkpoint
    validate(Path(checkpoint.name))
    if weights and not any(Path(checkpoint.name).glob("*.safetensors")):
        raise CheckpointRefused(
            f"the checkpoint '{named(checkpoint.name)}' holds no .safetensors weights such as model.safetensors; "
            f"fetch those of {EXAMPLES[actual]}"
        )
    check(Path(checkpoint.name), weights=weights)
    return checkpoint


def lack_of_config(folder: Path) -> str:
    """What a folder without config.json is, as far as the names in it say."""
    for pattern, form in _OTHER_FORMS.items():
        if any(folder.glob(pattern)):
            return f"holds {form}; this backend needs config.json and .safetensors weights"
    return "has no config.json; it must hold all files of a checkpoint"
