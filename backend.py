"""What LocalAI's tools for Python backends start and read: `python backend.py --addr HOST:PORT`.

run.sh does not come this way: it starts the package beside this file, backend/, which `import backend` means here as
well, because a package comes before a module of the same name.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [
    str(HERE),
    str(HERE / "common"),
    str(HERE.parent / "common"),
]  # LocalAI's code lies in one of the latter


def checkpoint_of(request: Any) -> tuple[str, bool]:
    """What LocalAI's shared rule takes for the checkpoint of a LoadModel, and whether it is on this disk.

    Raises ImportError outside of LocalAI's tree. The backend has the same rule in checkpoint/find.py; test.py compares.
    """
    from model_utils import resolve_model_reference

    found: tuple[str, bool] = resolve_model_reference(request)
    return found


if __name__ == "__main__":
    runpy.run_module("backend", run_name="__main__", alter_sys=True)
