"""Joins the texts of a recording's chunks as their scripts are written.

The model writes each chunk's text by itself; joined with nothing, English becomes "end.Next", and joined with spaces,
Chinese gets spaces that nobody wrote. Rule: only a separator is added, and outer whitespace is all that is taken away.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from backend.transcript.scripts import is_continuous, is_full_width_punctuation, is_letter


def join(texts: Sequence[str]) -> tuple[str, list[int]]:
    """The joined text, and where in it each chunk's stripped text begins (for an empty one: the end so far)."""
    parts: list[str] = []
    offsets: list[int] = []
    length = 0
    before = ""
    for text in map(str.strip, texts):
        separator = separator_between(before, text)
        if separator:
            parts.append(separator)
        length += len(separator)
        offsets.append(length)
        if text:
            parts.append(text)
            length += len(text)
            before = text
    return "".join(parts), offsets


def separator_between(before: str, after: str) -> str:
    """What to write between two stripped texts: nothing in a continuous script or by an empty text; else a space."""
    if not before or not after or (_is_continuous_edge(reversed(before)) and _is_continuous_edge(after)):
        return ""
    return " "


def _is_continuous_edge(chars: Iterable[str]) -> bool:
    """Whether the text that starts with these characters needs no space before it.

    Other punctuation, emoji and marks are looked past. Digits are not: 价格是3 and 5元 must not become 35.
    """
    for char in chars:
        if is_full_width_punctuation(char):
            return True
        if is_letter(char):
            return is_continuous(char)
    return False
