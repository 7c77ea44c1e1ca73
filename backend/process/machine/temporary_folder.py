"""A folder for temporary files, also where none of the usual ones can be written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from backend.errors import EngineFailure

_MEMORY = "/dev/shm"  # noqa: S108 - only unnamed files are made there


def temporary_folder() -> str:
    """TMPDIR, /tmp or another usual folder that can be written; else shared memory, the user's own folders or the hub's
    cache. Raises EngineFailure, which names TMPDIR.
    """
    try:
        return tempfile.gettempdir()
    except OSError:  # none of the usual ones
        for folder in _others():
            try:
                with tempfile.TemporaryFile(dir=folder):
                    return folder
            except OSError:
                continue
    raise EngineFailure(
        "qwen-asr: no folder for temporary files can be written; set TMPDIR to one that this user may write"
    ) from None


def _others() -> Iterator[str]:
    yield _MEMORY
    for variable in ("XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "HF_HOME"):
        if os.environ.get(variable):
            yield os.environ[variable]
    yield str(Path(os.environ.get("HOME") or "/") / ".cache")
