"""Finds the forced aligner that the option `forced_aligner` names, and refuses at LoadModel what cannot be one.

Rules: the name is the operator's and was often written for another machine. So what is relative lies below the models
folder, and an absolute path that is not there is looked for below it by its last parts. A gateway whose machines share
one models folder sends no ModelPath: the models folder then follows from ModelFile, as the gateway forms it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from backend.checkpoint import hub
from backend.checkpoint.find import HUB_ID, Checkpoint, inspect, lack_of_config
from backend.checkpoint.layout import EXAMPLES
from backend.errors import AlignerRefused, CheckpointRefused, named
from backend.options.load_options import LoadOptions

_ARTIFACTS = ".artifacts"  # in the models folder: where the gateway keeps what it has fetched itself


def find_aligner(options: LoadOptions) -> Checkpoint:
    """The checkpoint that `options.forced_aligner` names. Raises AlignerRefused."""
    name = options.forced_aligner
    found = [_folder(path) for path in _places(options) if os.path.exists(path)]  # noqa: PTH110 - Path.exists may raise
    whole = [folder for folder in found if os.path.isfile(folder / "config.json")]  # noqa: PTH113 - so may is_file
    if whole:
        return Checkpoint(str(whole[0].absolute()), local=True)
    if HUB_ID.fullmatch(name):
        return Checkpoint(name, local=False, revision=options.forced_aligner_revision)
    if found:
        raise AlignerRefused(f"'{named(str(found[0]))}' {_fault(found[0])}")
    raise AlignerRefused(
        f"'{named(name)}' is neither a folder with a checkpoint, as it is or below the models folder, "
        f"nor a hub id such as {EXAMPLES['aligner']}"
    )


def inspect_aligner(options: LoadOptions) -> None:
    """Raise AlignerRefused where `options` name an aligner of which the disk shows that it cannot be loaded.

    Nothing is asked of the hub: of a hub id, an earlier download is inspected, if there is one.
    """
    if not options.forced_aligner:
        return
    checkpoint = find_aligner(options)
    if not checkpoint.local:
        folder = hub.downloaded(checkpoint.name, checkpoint.revision)
        if folder is None or not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
            return  # the first request for times fetches it
        checkpoint = Checkpoint(str(folder), local=True)
    try:
        inspect(checkpoint, "aligner")
    except CheckpointRefused as refusal:
        raise AlignerRefused(str(refusal)) from refusal


def models_folders(options: LoadOptions) -> Iterator[Path]:
    """Where relative names begin: ModelPath, and what ModelFile says of the models folder.

    That is the folder above `.artifacts`, or else ModelFile without the model's name at its end.
    """
    if options.model_path:
        yield Path(options.model_path)
    file, model = Path(options.model_file).parts, Path(options.model).parts
    if _ARTIFACTS in file:
        yield Path(*file[: file.index(_ARTIFACTS)])
    elif model and len(model) < len(file) and file[-len(model) :] == model:
        yield Path(*file[: -len(model)])


def _places(options: LoadOptions) -> Iterator[Path]:
    """The paths that the name may mean, the likeliest first."""
    name = Path(options.forced_aligner)
    if not name.is_absolute():
        yield from (folder / name for folder in models_folders(options))
        yield name  # in the working directory, as the project's own tools name it
        return
    yield name
    if os.path.exists(name):  # noqa: PTH110 - as above
        return
    for folder in models_folders(options):
        # The most parts first: the fewer agree, the likelier the folder is another model's.
        yield from (folder.joinpath(*name.parts[first:]) for first in range(1, len(name.parts)))


def _folder(path: Path) -> Path:
    """The gateway may name the weights: the checkpoint is their folder."""
    return path.parent if path.is_file() else path


def _fault(folder: Path) -> str:
    if not os.path.isdir(folder):  # noqa: PTH112 - as above
        return "is no folder"
    if not os.access(folder, os.R_OK | os.X_OK):
        return "cannot be read by this process; check its permissions"
    return f"{lack_of_config(folder)}, as {EXAMPLES['aligner']} has"
