"""The checkpoints that a tool loads: a folder, a hub id, or the demo's two in test/models."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from backend.wire.backend_pb2 import ModelOptions
from devtools.server_process import DEMO_ALIGNER, DEMO_MODEL

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


class NotLoadable(Exception):
    """There is no such checkpoint; the message names the variable, MODEL or ALIGNER."""


def loadable(variable: str, name: str) -> str:
    """A folder as an absolute path (the backend runs elsewhere), a hub id as it is. Raises NotLoadable."""
    path = Path(name)
    if path.exists():
        return str(path.resolve())
    if path in (DEMO_MODEL, DEMO_ALIGNER):
        raise NotLoadable(f"{variable}: the demo checkpoints are not in test/models; `make demo-models` trains them")
    if _HUB_ID.fullmatch(name) is None:
        raise NotLoadable(f"{variable}: {name} is neither a folder here nor a hub id such as Qwen/Qwen3-ASR-1.7B")
    return name


def chosen_aligner(model: str, aligner: str | None) -> str:
    """The loadable aligner, "" for none. None: the demo's with the demo's model, whose fifty words are all it knows."""
    if aligner is None:
        aligner = str(DEMO_ALIGNER) if Path(model).resolve() == DEMO_MODEL else ""
    return loadable("ALIGNER", aligner) if aligner else ""


def load_options(model: str, aligner: str, options: Sequence[str] = (), quantization: str = "") -> ModelOptions:
    """LoadModel's request, for an `aligner` from `chosen_aligner` and further "name:value" `options`."""
    found = loadable("MODEL", model)
    return ModelOptions(
        Model=model,
        ModelFile=found if Path(found).exists() else "",
        Options=[*([f"forced_aligner:{aligner}"] if aligner else []), *options],
        Quantization=quantization,
    )
