"""What an exception of a model, a library or a driver means.

Told by name and text: torch is not imported here, and half of these have no class of their own.
"""

from __future__ import annotations

from typing import TypeVar

from backend.errors import AsrError, EngineFailure, OutOfMemory

E = TypeVar("E", bound=Exception)

_NO_MEMORY = ("allocate memory", "out of memory", "BLAS_STATUS_ALLOC_FAILED")


def cause_of(error: Exception) -> AsrError:
    """The error that a request is answered with."""
    if isinstance(error, AsrError):
        return error
    # torch.OutOfMemoryError is a RuntimeError, and so is what torch's allocator for CPUs raises
    named = type(error).__name__ == "OutOfMemoryError" or any(text in str(error) for text in _NO_MEMORY)
    return OutOfMemory() if named or isinstance(error, MemoryError) else EngineFailure()


def is_lost_device(error: Exception) -> bool:
    """Whether the driver gave the device up: whatever is asked of it from then on fails with the same error.

    A library's refusal is none, nor is want of memory, though torch calls both CUDA's errors.
    """
    if isinstance(cause_of(error), OutOfMemory) or "BLAS_STATUS_" in str(error):
        return False
    return type(error).__name__ == "AcceleratorError" or str(error).startswith(("CUDA error", "HIP error"))


def untraced(error: E) -> E:
    """The error without its trace and its causes': they would hold what was in memory when it was raised."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
