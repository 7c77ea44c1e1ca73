"""This project at another git revision: unpacked under build/bench, installed by its own install.sh.

The revision gets a virtual environment of its own that sees the packages of this tree's. So its install.sh downloads
only what the two pin differently, compiles its own C kernels, and writes its stamps there and not here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import replace
from pathlib import Path

from devtools.bench.measurement import Failed
from devtools.bench.system import OURS, System
from devtools.server_process import ROOT, RUN_SH

_UNPACKED = ".unpacked"
_WORKERS = ("devtools/bench/engine_worker.py", "devtools/bench/inside.py", "bench/inside.py")  # newest name first
_NOT_INHERITED = {"BUILD_TYPE", "PYTHON", "PORTABLE_PYTHON", "DEV", "TORCH_INDEX"}  # the venv's kind decides


def system(revision: str) -> System:
    """The backend of `revision`, a name that git knows, ready to run. Raises Failed."""
    try:
        commit = _git("rev-parse", "--short", "--verify", f"{revision}^{{commit}}").decode().strip()
    except Failed as failure:  # git's own sentence does not name it
        raise Failed(f"AGAINST: {revision} is no commit, branch or tag here ({failure})") from failure
    folder = ROOT / f"build/bench/rev-{commit}"
    if not (folder / _UNPACKED).is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        subprocess.run(["tar", "-x", "-C", str(folder)], input=_git("archive", commit), check=True)
        (folder / _UNPACKED).touch()
    _install(folder)
    note = _missing_kernels(commit, folder)
    worker = next((name for name in _WORKERS if (folder / name).is_file()), "")
    module = worker.removesuffix(".py").replace("/", ".")
    command = (*RUN_SH, str(folder / "run.sh"))
    engine = (str(folder / "venv/bin/python"), "-m", module) if module else ()
    return replace(OURS, name=commit, command=command, folder=folder, worker=engine, note=note)


def _install(folder: Path) -> None:
    """Run install.sh each time, as this tree's packages may have changed since the last one. Raises Failed."""
    venv = folder / "venv"
    base = os.path.realpath(sys.executable)  # not that of ./venv, which may not know its own base (install.sh)
    subprocess.run([base, "-m", "venv", "--without-pip", str(venv)], check=True)
    packages = Path(sysconfig.get_path("purelib"))
    own = venv / packages.relative_to(sys.prefix)
    # pip takes what lies outside its prefix as installed and never removes it; what it installs comes first
    (own / "of_this_tree.pth").write_text(f"import site; site.addsitedir({str(packages)!r})\n")
    shutil.copyfile(ROOT / "venv/.kind", venv / ".kind")
    (venv / ".runtime").unlink(missing_ok=True)
    environment = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
    command = ["bash", str(folder / "install.sh")]
    done = subprocess.run(command, cwd=folder, env=environment, stdout=sys.stderr, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise Failed(f"{folder}/install.sh failed with exit code {done.returncode}")


def _missing_kernels(commit: str, folder: Path) -> str:
    """A note where the revision has no C kernels to compile. Raises Failed where this tree's are compiled, its not."""
    ours, theirs = (any((tree / "backend").rglob("lib*.so")) for tree in (ROOT, folder))
    if ours == theirs:
        return ""
    if theirs:
        raise Failed(f"the C kernels of {commit} are compiled and those of this tree are not; run make install")
    if any((folder / "backend").rglob("*.c")):
        raise Failed(f"install.sh did not compile the C kernels of {commit}; a comparison without them would mislead")
    return f"{commit} has no C kernels"


def _git(*arguments: str) -> bytes:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True)
    if done.returncode:
        raise Failed(done.stderr.decode(errors="replace").strip())
    return done.stdout
