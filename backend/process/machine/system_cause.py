"""What the operating system refused, in words that a caller and the log may have.

Rules: the number of an error (errno), its text and the class of a system error are nobody's secret; the text of any
other exception may repeat what a client sent, and is never read for more than a number. File names are left out: those
of a checkpoint are named where they are known (checkpoint/files.py).
"""

from __future__ import annotations

import errno
import mmap
import os
import re
import socket
from collections.abc import Iterator

from backend.errors import EngineFailure, named

_NO_THREAD = "can't start new thread"
_NO_CODE = "could not create a primitive"
_OS_ERROR = re.compile(r"\(os error (\d+)\)")  # how libraries in Rust end the text of a system error
_EXECUTABLE = ("failed to map segment", "cannot enable executable stack", "executable memory")
THREADS = (
    "no thread can be started; raise the limit on processes (ulimit -u, the container's pids limit), or allow the "
    "system call clone3 to the container"
)
EXECUTABLE = "executable memory is forbidden here; allow it (systemd's MemoryDenyWriteExecute, noexec, SELinux execmem)"
NOT_INSTALLED = "the backend is not wholly installed: run install.sh"


def system_cause(error: BaseException) -> str:
    """What the system refused, from the error or the first of its causes that says it; "" if none does."""
    return next(filter(None, map(own_cause, error_chain(error))), "")


def engine_failure(error: BaseException) -> EngineFailure:
    """INTERNAL, with what the operating system refused, if it did."""
    cause = system_cause(error)
    return EngineFailure(f"qwen-asr: internal error: {cause}; the log has the details") if cause else EngineFailure()


def errno_of(error: BaseException) -> int | None:
    """The number of a system error; None if `error` itself is none."""
    if isinstance(error, OSError) and error.errno in errno.errorcode:
        return error.errno
    match = _OS_ERROR.search(str(error))
    return int(match[1]) if match else None


def described(number: int) -> str:
    """Such as `ENOSPC, No space left on device`."""
    return named(f"{errno.errorcode.get(number, number)}, {os.strerror(number)}")


def error_chain(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised from or while, and so on."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def own_cause(error: BaseException) -> str:
    """As `system_cause`, of the error alone."""
    text = str(error)
    if isinstance(error, RuntimeError) and _NO_THREAD in text:
        return THREADS
    if isinstance(error, (ImportError, OSError, MemoryError)) and any(part in text for part in _EXECUTABLE):
        return EXECUTABLE
    if isinstance(error, RuntimeError) and _NO_CODE in text and not _may_execute():  # oneDNN makes its code at run time
        return EXECUTABLE
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"the module {named(error.name)} is missing; {NOT_INSTALLED}"
    if isinstance(error, socket.gaierror):
        return "the host name is not known"
    number = errno_of(error)
    return described(number) if number else ""


def _may_execute() -> bool:
    """Whether memory can be had that is written and then executed."""
    try:
        mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()
    except OSError:
        return False
    return True
