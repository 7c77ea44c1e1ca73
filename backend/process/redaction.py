"""Redaction of tracebacks: the log gets the frames and the kind of an exception, but nothing that a client sent.

Libraries put their input into error messages: a path, a prompt, a piece of text. Such messages are left out. Kept are
this backend's own messages, what the operating system refused (system_cause.py), messages of imports that failed, and
torch's messages about devices and shapes.
"""

from __future__ import annotations

import traceback

from backend.errors import AsrError, Fatal
from backend.process.machine.system_cause import error_chain, own_cause

# torch raises these classes themselves. Subclasses are a library's own, and their messages are left out.
_KEPT_CLASSES = (RuntimeError, MemoryError, NotImplementedError, ImportError, ModuleNotFoundError)


def redacted_traceback(error: BaseException) -> str:
    """The redacted tracebacks of the error and of its chain of causes, the first cause first."""
    chain = list(error_chain(error))
    return "\nwhich led to:\n".join(_traceback(link) for link in reversed(chain))


def _traceback(error: BaseException) -> str:
    frames = "".join(traceback.format_tb(error.__traceback__))
    return f"{frames}{type(error).__qualname__}{_message(error)}"


def _message(error: BaseException) -> str:
    kind = type(error)
    if isinstance(error, (AsrError, Fatal)) or kind in _KEPT_CLASSES or kind.__module__.partition(".")[0] == "torch":
        return f": {error}"
    refused = own_cause(error)
    return f": {refused}" if refused else ""
