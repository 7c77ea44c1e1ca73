"""Why a text file that a person named cannot be read."""

from __future__ import annotations

from pathlib import Path


def unread(path: Path, error: OSError | UnicodeDecodeError) -> str:
    """The cause, for people: a file that is not there is not one that is "not UTF-8"."""
    if isinstance(error, UnicodeDecodeError):
        return "is not UTF-8 text"
    if path.is_dir():
        return "is a folder"
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    return f"cannot be read ({error.strerror or error})"
