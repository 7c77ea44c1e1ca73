"""An exception as the log may hold it: where it happened and of what kind, without what a client sent.

Libraries put into their messages what they were given: a path, a prompt, a piece of text. Those stay out; kept are
our own messages, what the system calls an error, and what torch says of devices and shapes.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator

from backend.errors import AsrError

# These very classes: torch raises them, and libraries raise what they derive from them.
_OF_THE_MACHINE = (RuntimeError, MemoryError, NotImplementedError, ImportError)


def written(error: BaseException) -> str:
    """The trace of the error and of what led to it, the first cause first."""
    chain = list(_chain(error))
    return "\nwhich led to:\n".join(_one(part) for part in reversed(chain))


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _one(error: BaseException) -> str:
    frames = "".join(traceback.format_tb(error.__traceback__))
    return f"{frames}{type(error).__qualname__}{_message(error)}"


def _message(error: BaseException) -> str:
    kind = type(error)
    if isinstance(error, AsrError) or kind in _OF_THE_MACHINE or kind.__module__.partition(".")[0] == "torch":
        return f": {error}"
    if isinstance(error, OSError) and error.strerror and kind.__module__ == "builtins":
        return f": {error.strerror}"  # without the file's name
    return ""
