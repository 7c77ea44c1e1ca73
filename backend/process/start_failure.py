"""The last line of a start that failed: the cause in words, which the gateway shows to people."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from backend.errors import Fatal, NoThreads
from backend.process.machine.system_cause import NOT_INSTALLED, error_chain, system_cause

# gRPC ends the process without a cause where it cannot start its own: with 8 processes and threads allowed to the user
# it aborted, with 16 the server listened.
_LEAST_THREADS = 12


def ended_with(error: BaseException, what: str = "cannot start") -> int:
    """Write the cause as the last line of stderr; the exit code."""
    sys.stderr.write(f"the backend {what}: {start_cause(error)}\n")
    sys.stderr.flush()
    return 1


def check_threads(count: int = _LEAST_THREADS) -> None:
    """Start so many threads at once and end them. Raises NoThreads if the system allows fewer."""
    enough = threading.Event()
    threads = [threading.Thread(target=enough.wait, daemon=True) for _ in range(count)]
    try:
        for thread in threads:
            thread.start()
    except RuntimeError:
        raise NoThreads from None
    finally:
        enough.set()


def start_cause(error: BaseException) -> str:
    """Why the start failed, with a remedy where one is known."""
    if isinstance(error, Fatal):
        return str(error)
    barred = next(filter(None, map(_barred, error_chain(error))), None)
    if barred:
        user = f"the user with the id {os.getuid()}"
        return f"{barred} cannot be read by {user}: allow it (chmod -R a+rX), or install as that user"
    cause = system_cause(error)
    if cause:
        return cause
    if isinstance(error, ImportError):
        return f"{error}; {NOT_INSTALLED}"
    return f"{type(error).__name__}; the lines above say where"


def _barred(error: BaseException) -> str | None:
    """A file or a package of the installation that is there and that this user may not read."""
    if isinstance(error, PermissionError) and error.filename:
        return os.fsdecode(error.filename)
    if isinstance(error, ModuleNotFoundError) and error.name:
        top = error.name.partition(".")[0]
        candidates = (Path(folder or ".") / name for folder in sys.path for name in (top, f"{top}.py"))
        return next((str(path) for path in candidates if _is_unreadable(path)), None)
    return None


def _is_unreadable(path: Path) -> bool:
    return os.path.lexists(path) and not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0))
