"""glibc's malloc, tuned around a load. With other C libraries (musl, macOS) nothing here does anything.

The rules: weights, which stay for hours, are not allocated between blocks that are freed at once; freed memory goes
back to the system.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
_LOAD_MMAP_BYTES = 1 << 20
ALWAYS_MMAPPED_BYTES = 32 << 20  # larger blocks are always mappings: glibc's upper bound, where its own adaptation ends


def _glibc() -> Any:
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None


@contextmanager
def large_blocks_mmapped() -> Iterator[None]:
    """Within, each block of a megabyte or more is a mapping of its own, which goes back to the system when it is freed.

    For loads: weights are read, stacked and packed in blocks of ten megabytes. By default glibc soon takes such blocks
    from its heap, where freed ones stay between those that remain: loading int8 weights then peaks at 1.5 times their
    size instead of 1.1. Afterwards such blocks come from the heap again, because page faults of fresh memory for every
    intermediate result would make computing slow.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    libc.malloc_trim(0)  # so that what requests have freed does not count beside the weights
    libc.mallopt(_MMAP_THRESHOLD, _LOAD_MMAP_BYTES)
    try:
        yield
    finally:
        libc.mallopt(_MMAP_THRESHOLD, ALWAYS_MMAPPED_BYTES)
        libc.mallopt(_TRIM_THRESHOLD, 2 * ALWAYS_MMAPPED_BYTES)  # glibc's own ratio of the two
        libc.malloc_trim(0)


def trim() -> None:
    """Give freed pages back to the system."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)
