"""A folder for results that holds none yet: nothing that was measured is overwritten."""

from __future__ import annotations

import contextlib
import datetime
import itertools
from pathlib import Path


class FolderTaken(Exception):
    """OUT holds results; the message says what to do."""


def fresh_folder(asked: Path | None, parent: Path, *results: str) -> Path:
    """`asked`, or a new folder in `parent` that is named by the time. It exists when this returns.

    Raises FolderTaken where `asked` holds one of the files `results`, or cannot be made.
    """
    if asked is None:
        return _named_by_time(parent)
    if taken := [name for name in results if (asked / name).exists()]:
        raise FolderTaken(f"OUT: {asked} holds {taken[0]} already, which stays; give another folder, or remove it")
    try:
        asked.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FolderTaken(f"OUT: {asked} cannot be made ({error.strerror}); give a folder") from error
    return asked


def _named_by_time(parent: Path) -> Path:
    now = datetime.datetime.now().strftime("%Y-%m-%d-%H%M%S")
    for number in itertools.count(1):
        folder = parent / (now if number == 1 else f"{now}-{number}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
    raise AssertionError("there is always another number")
