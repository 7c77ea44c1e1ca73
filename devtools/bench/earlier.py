"""Our own backend as it was at another commit, run with this tree's virtual environment."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from devtools.bench.child import OURS, RUN, Failed, System
from devtools.bench.shapes import ROOT

_FOLDER = ROOT / "build/bench"


def system(revision: str) -> System:
    """The backend of `revision`, a name that git knows, unpacked under build/bench. Raises Failed."""
    commit = _git("rev-parse", "--short", "--verify", f"{revision}^{{commit}}").decode().strip()
    folder = _FOLDER / f"rev-{commit}"
    if not (folder / "venv").is_symlink():
        _unpack(commit, folder)
    return System(commit, (*RUN, str(folder / "run.sh")), folder, OURS.dtype)


def _unpack(commit: str, folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    subprocess.run(["tar", "-x", "-C", str(folder)], input=_git("archive", commit), check=True)
    stubs = ["--python_out=.", "--pyi_out=.", "--grpc_python_out=."]
    command = [sys.executable, "-m", "grpc_tools.protoc", "-Ibackend/wire=proto", *stubs, "proto/backend.proto"]
    subprocess.run(command, check=True, cwd=folder)
    (folder / "venv").symlink_to(ROOT / "venv")  # last: whoever finds it finds everything


def _git(*arguments: str) -> bytes:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True)
    if done.returncode:
        raise Failed(done.stderr.decode(errors="replace").strip())
    return done.stdout
