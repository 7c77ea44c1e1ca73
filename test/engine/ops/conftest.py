"""The C kernels in each of their variants."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest

from backend.engine.ops import native


@pytest.fixture(params=["baseline", "avx2"])
def instruction_set(request: pytest.FixtureRequest) -> Iterator[None]:
    """The kernels of attention.c and rowwise.c as processors with this instruction set run them."""
    selected = ctypes.c_int.in_dll(native.library, "instruction_set")
    best = selected.value
    if request.param_index > best:
        pytest.skip(f"kernels in the variant {request.param}: not on this processor")
    selected.value = request.param_index
    yield
    selected.value = best
