"""Joins the texts of a recording's chunks, with or without a space as their scripts are written.

The model writes each chunk's text by itself. Joined without a separator, English becomes "end.Next"; joined with
spaces, Chinese gets spaces that nobody wrote. Only single spaces are added, and only outer whitespace is removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from backend.transcript.scripts import is_continuous, is_full_width_punctuation, is_letter


def join(texts: Sequence[str]) -> tuple[str, list[int]]:
    """The joined text, and the offset of each chunk's stripped text in it (for an empty one: the length so far)."""
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
    """The separator of two stripped texts: "" between continuous scripts or beside an empty text, else a space."""
    if not before or not after or (_is_continuous_edge(reversed(before)) and _is_continuous_edge(after)):
        return ""
    return " "


def _is_continuous_edge(chars: Iterable[str]) -> bool:
    """Whether the text that starts with these characters needs no space before it.

    Other punctuation, emoji and combining marks are skipped. Digits are not: 价格是3 and 5元 must not become 35.
    """
    for char in chars:
        if is_full_width_punctuation(char):
            return True
        if is_letter(char):
            return is_continuous(char)
    return False
