"""What an exception that was raised by a model, a library or a driver means to a request or to a load.

Rules: exceptions are classified by their class's name and their text, because torch is not imported here and half of
them have no class of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from backend.errors import AsrError, DeviceLost, LoadRefused, OutOfMemory, TooLittleMemory
from backend.process.machine.system_cause import engine_failure, system_cause

E = TypeVar("E", bound=Exception)

_OUT_OF_MEMORY_TEXTS = ("allocate memory", "out of memory", "BLAS_STATUS_ALLOC_FAILED")
# One call was refused and the device still works: a library's status, no kernels in torch for this GPU, a GPU that
# another process has to itself ...
_REFUSED_CALL_TEXTS = (
    "BLAS_STATUS_", "kernel image", "invalid device function", "invalid device ordinal", "busy or unavailable",
    "unsupported toolchain", "not supported",
)  # fmt: skip


def cause_of(error: Exception) -> AsrError:
    """The error that a request is answered with."""
    if isinstance(error, AsrError):
        return error
    # by name: torch.OutOfMemoryError is a RuntimeError, and torch's allocator for CPUs raises plain RuntimeErrors
    is_out_of_memory = type(error).__name__ == "OutOfMemoryError" or any(
        text in str(error) for text in _OUT_OF_MEMORY_TEXTS
    )
    return OutOfMemory() if is_out_of_memory or isinstance(error, MemoryError) else engine_failure(error)


def is_lost_device(error: Exception) -> bool:
    """Whether the driver has given the device up: every later call to it fails with the same error.

    A library's refusal, a lack of memory and a missing kernel are also "CUDA error" to torch, and lose no device.
    """
    if isinstance(cause_of(error), OutOfMemory) or any(text in str(error) for text in _REFUSED_CALL_TEXTS):
        return False
    return type(error).__name__ == "AcceleratorError" or str(error).startswith(("CUDA error", "HIP error"))


def refusal_of(error: Exception) -> AsrError:
    """The error of a load that `error` ended. Its causes count too: our own code wraps the driver's."""
    if any(is_lost_device(part) for part in _chain(error)):
        return DeviceLost()
    if any(isinstance(cause_of(part), OutOfMemory) for part in _chain(error)):
        return TooLittleMemory()
    if isinstance(error, AsrError):
        return error
    cause = system_cause(error)
    return LoadRefused(
        f"loading failed ({type(error).__name__}{': ' + cause if cause else ''}); the backend's log has the traceback"
    )


def _chain(error: Exception) -> Iterator[Exception]:
    """The error, its cause or context, that one's, and so on."""
    seen: set[int] = set()
    part: BaseException | None = error
    while isinstance(part, Exception) and id(part) not in seen:
        seen.add(id(part))
        yield part
        part = part.__cause__ or part.__context__


def untraced(error: E) -> E:
    """The error without its traceback and causes: their frames would keep in memory what was there at the raise."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
