"""The C kernels in each of their variants."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest

from backend.engine.ops import native

_VARIANTS = ["baseline", "avx2"]  # in the order of their numbers in C


@pytest.fixture(params=range(len(_VARIANTS)), ids=_VARIANTS)
def instruction_set(request: pytest.FixtureRequest) -> Iterator[None]:
    """The kernels of attention.c and rowwise.c as processors with this instruction set run them."""
    selected = ctypes.c_int.in_dll(native.library, "instruction_set")
    best = selected.value
    if request.param > best:
        pytest.skip(f"kernels in the variant {_VARIANTS[request.param]}: not on this processor")
    selected.value = request.param
    yield
    selected.value = best
