"""Our own library in C (csrc/), where install.sh found a compiler.

`library` is None elsewhere; whoever calls it asks each time, and knows another way.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
from pathlib import Path
from typing import Any

import torch  # noqa: F401 - the library is linked to its OpenMP, which must be there

_log = logging.getLogger(__name__)

_CSRC = Path(__file__).with_name("csrc")
_LIBRARY = _CSRC / "libkernels.so"

POINTER, COUNT, FLOAT, FLAG = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_int
_ARGUMENTS = {
    "norm": (POINTER, POINTER, POINTER, COUNT, COUNT, FLOAT, FLAG),
    "gate": (POINTER, POINTER, COUNT, COUNT, FLAG),
    "scale": (POINTER, POINTER, POINTER, COUNT, COUNT),
    "rescale": (POINTER, POINTER, COUNT, COUNT),
    "quantize": (POINTER, POINTER, POINTER, COUNT, COUNT),
    "dequantize": (POINTER, POINTER, POINTER, POINTER, COUNT, COUNT),
    "multiply_halves": (POINTER,),
    "multiply_bytes": (POINTER,),
    "attend_to_prompts": (POINTER,),
    "turn": (POINTER,),
    "attend": (POINTER,),
}


def _loaded(path: Path, sources: Path = _CSRC) -> Any:
    """Our own library; None where there is none, or one that fits neither this machine nor what is called here."""
    if not path.exists():
        return None
    try:
        loaded = ctypes.CDLL(str(path))
        if ctypes.c_char_p.in_dll(loaded, "source").value == digest(sources).encode():
            for name, arguments in _ARGUMENTS.items():
                getattr(loaded, name).argtypes = arguments
                getattr(loaded, name).restype = None
            return loaded
        cause = "it is not of this version"
    except (OSError, ValueError, AttributeError) as error:  # of another kind of machine; without what we ask for
        cause = str(error)
    _log.warning("%s is not used (%s); remove it and run install.sh", path.name, cause)
    return None


def digest(sources: Path = _CSRC) -> str:
    """Of the sources, which the library knows of those it was made of."""
    sha = hashlib.sha256()
    for source in sorted(sources.glob("*.[ch]")):
        sha.update(source.read_bytes())
    return sha.hexdigest()


library = _loaded(_LIBRARY)
