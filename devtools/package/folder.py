"""Makes the folder that runs wherever it is moved.

    run.sh  backend/  metadata.json    what LocalAI starts, the backend, and its name and version
    venv/                              the packages that it needs, as ./venv has them, and the stamps of install.sh
    python/                            the interpreter, if ./python is there
    lib/                               libraries of a GPU, if ./lib is there
    test/                              the demo checkpoints and one recording, for a trial on the spot
    LICENSE  licenses/  sbom.cdx.json  of everything in it

Nothing in it names the place where it was made, but for the link to that machine's interpreter where ./python is
missing. Bytecode is made along with it: a folder that cannot be written would compile its modules at every start.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Callable, Iterable
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

from devtools.package.distributions import files_of, required
from devtools.package.licences import write_licences
from devtools.package.sbom import bill_of_materials

Transfer = Callable[[Any, Any], object]  # of paths: copies the first to the second

NAME = "qwen-asr"
_OWN = ("run.sh", "LICENSE", "proto/backend.proto", "test/audio/demo.wav", "test/audio/demo.json")
_OWN_FOLDERS = ("backend", "test/models")
_STAMPS = (".kind", ".runtime", ".wire", ".kernels")
_JUNK = ("__pycache__", "*.pyc", "*.pyi", "*.o")
# Of an interpreter: other programs, tests, its own packages, headers and what compilers need, and dialogues.
_NOT_OF_PYTHON = (
    "site-packages",
    "test",
    "tests",
    "idlelib",
    "tkinter",
    "turtledemo",
    "ensurepip",
    "config-3.*",
    "*.a",
    *_JUNK,
)


class NotBuilt(Exception):
    """A part that install.sh makes is missing; the message says which."""


def make_folder(root: Path, target: Path, *, link: bool = False, bytecode: bool = True) -> dict[str, int]:
    """The package of the checkout `root` in `target`, made anew. Returns the bytes of its parts, by name.

    `link`: hard links in place of copies, for trials on one file system. Raises NotBuilt, NotInstalled.
    """
    site = Path(sysconfig.get_paths()["purelib"])
    if not (root / "backend/wire/backend_pb2_grpc.py").is_file():
        raise NotBuilt("the protobuf stubs are missing; run `make install`")
    needed = required(root, site)
    shutil.rmtree(target, ignore_errors=True)
    transfer: Transfer = link_file if link else shutil.copy2
    sizes = {"backend": _copy_own(root, target, transfer)}
    packages = target / "venv/lib" / _python_name() / "site-packages"
    for found in needed:
        sizes[found.metadata["Name"]] = _copy_files(files_of(found), site, packages, transfer)
    interpreter = root / "python"
    if interpreter.is_dir():
        sizes["python"] = copy_python(interpreter, target / "python", transfer)
    if (root / "lib").is_dir():
        shutil.copytree(root / "lib", target / "lib", symlinks=True)
    _write_venv(target / "venv", has_python=interpreter.is_dir())
    _write_descriptions(root, target, site, needed, platform.python_version() if interpreter.is_dir() else "")
    if bytecode:
        before = _bytes_in(target)
        _compile(target)
        sizes["bytecode"] = _bytes_in(target) - before
    return sizes


def _python_name() -> str:
    return f"python{sys.version_info.major}.{sys.version_info.minor}"


def version_of(root: Path) -> str:
    return str(tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])


def _copy_own(root: Path, target: Path, transfer: Transfer) -> int:
    _copy_files(_OWN, root, target, transfer)
    for file in sorted(root.glob("requirements*.txt")):
        transfer(file, target / file.name)
    for folder in _OWN_FOLDERS:
        shutil.copytree(root / folder, target / folder, ignore=shutil.ignore_patterns(*_JUNK), copy_function=transfer)
    for stamp in _STAMPS:
        if (Path(sys.prefix) / stamp).is_file():
            (target / "venv").mkdir(exist_ok=True)
            shutil.copyfile(Path(sys.prefix) / stamp, target / "venv" / stamp)
    return _bytes_in(target)


def _copy_files(files: Iterable[os.PathLike[str] | str], source: Path, target: Path, transfer: Transfer) -> int:
    copied = 0
    for file in files:
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        transfer(source / file, target / file)
        copied += (target / file).stat().st_size
    return copied


def copy_python(source: Path, target: Path, transfer: Transfer = shutil.copy2) -> int:
    """The interpreter of the prefix `source`, of this Python's version, with what it needs to run; its bytes."""
    name = _python_name()
    ignore = shutil.ignore_patterns(*_NOT_OF_PYTHON)
    shutil.copytree(source / "lib" / name, target / "lib" / name, symlinks=True, ignore=ignore, copy_function=transfer)
    for library in (source / "lib").glob("libpython3*.so*"):
        transfer(library.resolve(), target / "lib" / library.name)
    (target / "bin").mkdir()
    transfer((source / "bin" / name).resolve(), target / "bin" / name)
    (target / "bin/python3").symlink_to(name)
    return _bytes_in(target)


def link_file(source: Path, target: Path) -> None:
    """A hard link, or a copy where the two are on different file systems."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _write_venv(venv: Path, *, has_python: bool) -> None:
    """What makes `venv` an environment: without `home`, Python follows the link to its library, from 3.11 to 3.14."""
    version = f"version = {platform.python_version()}\n"
    (venv / "pyvenv.cfg").write_text(f"include-system-site-packages = false\n{version}", encoding="utf-8")
    (venv / "bin").mkdir()
    name = _python_name()
    (venv / "bin" / name).symlink_to(f"../../python/bin/{name}" if has_python else os.path.realpath(sys.executable))
    (venv / "bin/python").symlink_to(name)
    (venv / "bin/python3").symlink_to(name)


def _write_descriptions(root: Path, target: Path, site: Path, needed: list[Distribution], python: str) -> None:
    version = version_of(root)
    others = [(NAME, "MIT", root / "LICENSE")]
    if python:
        others.append((f"python-{python}", "PSF-2.0", root / "python/lib" / _python_name() / "LICENSE.txt"))
    write_licences(target / "licenses", site, needed, others)
    _write_json(target / "sbom.cdx.json", bill_of_materials(version, needed, python))
    _write_json(target / "metadata.json", {"name": NAME, "version": version})


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _compile(target: Path) -> None:
    """Bytecode that is valid whatever the times of its sources are, and the same in every package of them."""
    folders = [str(target / name) for name in ("backend", "venv/lib", "python/lib") if (target / name).is_dir()]
    program = (
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "compileall",
        "-qq",
        "-j",
        "0",
        "--invalidation-mode",
        "unchecked-hash",
    )
    # Not checked: wheels hold templates and sources for other Pythons, which do not compile.
    subprocess.run([*program, "-s", str(target), *folders], check=False)


def _bytes_in(folder: Path) -> int:
    """Of the files in a folder, without following links."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
