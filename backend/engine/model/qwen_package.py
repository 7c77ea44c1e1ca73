"""What is used of the qwen_asr package, without the rest.

Its `__init__` imports the pipelines, and with them DyNet, numba and sklearn: half of the seconds of a first LoadModel.
Its submodules are imported past it, transformers is told that there is neither sklearn nor scipy (it wants them for a
decoding method and a loss that nobody uses here), and afterwards all is as if nothing had happened: who imports the
package gets the whole of it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import import_utils

_UNUSED = ("_sklearn_available", "_scipy_available")


@contextmanager
def _without_init() -> Iterator[None]:
    """Submodules of qwen_asr can be imported without its `__init__`."""
    spec = importlib.util.find_spec("qwen_asr")
    if spec is None or "qwen_asr" in sys.modules:
        yield
        return
    bare = types.ModuleType("qwen_asr")
    bare.__path__ = list(spec.submodule_search_locations or ())
    sys.modules["qwen_asr"] = bare
    known = {name: getattr(import_utils, name) for name in _UNUSED}
    vars(import_utils).update(dict.fromkeys(_UNUSED, False))
    try:
        yield
    finally:
        vars(import_utils).update(known)
        del sys.modules["qwen_asr"]


with _without_init():
    _models = importlib.import_module("qwen_asr.core.transformers_backend")

Qwen3ASRConfig = _models.Qwen3ASRConfig
Qwen3ASRForConditionalGeneration = _models.Qwen3ASRForConditionalGeneration
Qwen3ASRProcessor = _models.Qwen3ASRProcessor
