"""What an exception of a model, a library or a driver means.

Told by name and text: torch is not imported here, and half of these have no class of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from backend.errors import AsrError, DeviceLost, EngineFailure, LoadRefused, OutOfMemory, TooLittleMemory

E = TypeVar("E", bound=Exception)

_NO_MEMORY = ("allocate memory", "out of memory", "BLAS_STATUS_ALLOC_FAILED")
# What a library, or a driver at a load, refuses: torch has no kernels for this GPU, another process has it to itself, …
_REFUSED_ONCE = (
    "BLAS_STATUS_", "kernel image", "invalid device function", "invalid device ordinal", "busy or unavailable",
    "unsupported toolchain", "not supported",
)  # fmt: skip


def cause_of(error: Exception) -> AsrError:
    """The error that a request is answered with."""
    if isinstance(error, AsrError):
        return error
    # torch.OutOfMemoryError is a RuntimeError, and so is what torch's allocator for CPUs raises
    named = type(error).__name__ == "OutOfMemoryError" or any(text in str(error) for text in _NO_MEMORY)
    return OutOfMemory() if named or isinstance(error, MemoryError) else EngineFailure()


def is_lost_device(error: Exception) -> bool:
    """Whether the driver gave the device up: whatever is asked of it from then on fails with the same error.

    A library's refusal is none, nor is want of memory or of a kernel, though torch calls all of them CUDA's errors.
    """
    if isinstance(cause_of(error), OutOfMemory) or any(text in str(error) for text in _REFUSED_ONCE):
        return False
    return type(error).__name__ == "AcceleratorError" or str(error).startswith(("CUDA error", "HIP error"))


def refusal_of(error: Exception) -> AsrError:
    """What a load says that ended with the error. What led to it counts: transformers and our own code wrap it."""
    if any(is_lost_device(part) for part in _chain(error)):
        return DeviceLost()
    if any(isinstance(cause_of(part), OutOfMemory) for part in _chain(error)):
        return TooLittleMemory()
    if isinstance(error, AsrError):
        return error
    return LoadRefused(f"loading failed ({type(error).__name__}); the backend's log has the cause")


def _chain(error: Exception) -> Iterator[Exception]:
    seen: set[int] = set()
    part: BaseException | None = error
    while isinstance(part, Exception) and id(part) not in seen:
        seen.add(id(part))
        yield part
        part = part.__cause__ or part.__context__


def untraced(error: E) -> E:
    """The error without its trace and its causes': they would hold what was in memory when it was raised."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
