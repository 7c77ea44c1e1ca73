"""Loads the C kernels (csrc/), which install.sh compiles where it finds a compiler.

`library` is None where there is none. Every caller asks each time and has torch's operations as the other way. A
library that was made of other sources, or whose argument structs differ from native_args.py, is not used.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
from pathlib import Path
from typing import Any

import torch  # noqa: F401 - the library is linked to torch's OpenMP, which must be loaded first

from backend.engine.ops.native_args import KERNELS, LAYOUTS, LIMITS, layout

_log = logging.getLogger(__name__)

CSRC = Path(__file__).with_name("csrc")
LIBRARY = CSRC / "libkernels.so"


def load(path: Path, sources: Path = CSRC) -> Any:
    """The library at `path`. None where there is no such file, or, with a warning, where it does not fit: it is of
    another kind of machine, of other sources than those in `sources`, or has another layout of a struct.
    """
    if not path.exists():
        return None
    try:
        loaded = ctypes.CDLL(str(path))
        misfit = _misfit(loaded, sources)
        if misfit is None:
            for name, arguments in KERNELS.items():
                getattr(loaded, name).argtypes = arguments
                getattr(loaded, name).restype = None
            return loaded
    except (OSError, ValueError, AttributeError) as error:  # of another kind of machine; without a name that we use
        misfit = str(error)
    _log.warning("%s is not used (%s); remove it and run install.sh", path.name, misfit)
    return None


def _misfit(loaded: ctypes.CDLL, sources: Path) -> str | None:
    """Why a library cannot be called, or None. Raises ValueError where it lacks a name."""
    if ctypes.c_char_p.in_dll(loaded, "source_digest").value != digest(sources).encode():
        return "it is not of this version"
    for name, struct in LAYOUTS.items():
        mirror = layout(struct)
        if list((ctypes.c_int64 * len(mirror)).in_dll(loaded, name)) != mirror:
            return f"{struct.__name__} has another layout in C than in native_args.py"
    read_limits(loaded)
    return None


def read_limits(loaded: ctypes.CDLL) -> dict[str, int]:
    """The limits of the kernels, by the names that the library exports them under. Raises ValueError without one."""
    return {name: ctypes.c_int64.in_dll(loaded, name).value for name in LIMITS}


def digest(sources: Path = CSRC) -> str:
    """SHA-256 of the C sources. The library holds the one of the sources that it was compiled from."""
    sha = hashlib.sha256()
    for source in sorted(sources.glob("*.[ch]")):
        sha.update(source.read_bytes())
    return sha.hexdigest()


library = load(LIBRARY)
limits = {} if library is None else read_limits(library)  # of the kernels, by name
