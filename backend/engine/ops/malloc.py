"""The C library's heap, where it is glibc's. Elsewhere (musl, macOS) nothing here does anything.

Rules: what stays for hours does not stand among what goes at once; what was freed goes back to the system.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h
_SMALL = 1 << 20
LARGE = 32 << 20  # what is larger is a mapping in any case: the most that glibc takes, and where it ends by itself


def _glibc() -> Any:
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None


@contextmanager
def blocks_apart() -> Iterator[None]:
    """Meanwhile each block of a megabyte or more is a mapping of its own, which the system gets back when it is freed.

    Weights are read, stacked and packed in blocks of ten megabytes. By default glibc soon takes them from its heap,
    where what is freed stays between what remains: loading int8 weights then peaks at 1.5 times their size, not 1.1.
    Afterwards it is the heap again: to compute with fresh pages for every intermediate result would be slow.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    libc.malloc_trim(0)  # what requests have left must not stand beside what is read now
    libc.mallopt(_MMAP_THRESHOLD, _SMALL)
    try:
        yield
    finally:
        libc.mallopt(_MMAP_THRESHOLD, LARGE)
        libc.mallopt(_TRIM_THRESHOLD, 2 * LARGE)  # as glibc itself has it
        libc.malloc_trim(0)


def trim() -> None:
    """Give freed pages back to the system."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)
