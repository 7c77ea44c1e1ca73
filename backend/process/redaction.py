"""Redaction of tracebacks: the log gets the frames and the kind of an exception, but nothing that a client sent.

Libraries put their input into error messages: a path, a prompt, a piece of text. Such messages are left out. Kept are
this backend's own messages, the operating system's name of an error, and torch's messages about devices and shapes.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator

from backend.errors import AsrError

# torch raises these classes themselves. Subclasses are a library's own, and their messages are left out.
_KEPT_CLASSES = (RuntimeError, MemoryError, NotImplementedError, ImportError)


def redacted_traceback(error: BaseException) -> str:
    """The redacted tracebacks of the error and of its chain of causes, the first cause first."""
    chain = list(_chain(error))
    return "\nwhich led to:\n".join(_traceback(link) for link in reversed(chain))


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _traceback(error: BaseException) -> str:
    frames = "".join(traceback.format_tb(error.__traceback__))
    return f"{frames}{type(error).__qualname__}{_message(error)}"


def _message(error: BaseException) -> str:
    kind = type(error)
    if isinstance(error, AsrError) or kind in _KEPT_CLASSES or kind.__module__.partition(".")[0] == "torch":
        return f": {error}"
    if isinstance(error, OSError) and error.strerror and kind.__module__ == "builtins":
        return f": {error.strerror}"  # without the file name
    return ""
