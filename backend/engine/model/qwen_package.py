"""What the backend uses of the qwen_asr package, imported without the rest.

The package's `__init__` imports its pipelines, and with them DyNet, numba and sklearn: half of the time of a first
LoadModel. So its submodules are imported without running `__init__`. transformers is told meanwhile that sklearn and
scipy are not installed: it would import them for a decoding method and a loss that are not used here. Afterwards
everything is as before, and importing qwen_asr gives the whole package.
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
    """In this context, submodules of qwen_asr are imported without its `__init__`."""
    spec = importlib.util.find_spec("qwen_asr")
    if spec is None or "qwen_asr" in sys.modules:
        yield
        return
    bare = types.ModuleType("qwen_asr")
    bare.__path__ = list(spec.submodule_search_locations or ())
    sys.modules["qwen_asr"] = bare
    original = {name: getattr(import_utils, name) for name in _UNUSED}
    vars(import_utils).update(dict.fromkeys(_UNUSED, False))
    try:
        yield
    finally:
        vars(import_utils).update(original)
        del sys.modules["qwen_asr"]


with _without_init():
    _models = importlib.import_module("qwen_asr.core.transformers_backend")
    _modeling = importlib.import_module("qwen_asr.core.transformers_backend.modeling_qwen3_asr")

Qwen3ASRConfig = _models.Qwen3ASRConfig
Qwen3ASRForConditionalGeneration = _models.Qwen3ASRForConditionalGeneration
Qwen3ASRProcessor = _models.Qwen3ASRProcessor
ALL_ATTENTION_FUNCTIONS = _modeling.ALL_ATTENTION_FUNCTIONS  # transformers' registry, in which the layers look
