"""What is written on a command line, read for argparse."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable


def count(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, not {text!r}")
    return int(text)


def some_of(known: Iterable[str]) -> Callable[[str], tuple[str, ...]]:
    """Reads names with commas between them."""

    def names(text: str) -> tuple[str, ...]:
        found = tuple(name.strip() for name in text.split(","))
        unknown = [name for name in found if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)} is not known; there are {', '.join(known)}")
        return found

    return names
