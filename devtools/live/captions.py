"""Captions on a terminal, or in a pipe or file: a new line for each utterance, with the time at which it began.

On a terminal rows are wrapped between words and never change once they are full; after the words of the last row stands
how far they are behind the speaker. Elsewhere the text is written as it comes, without either.
"""

from __future__ import annotations

from collections.abc import Callable

from devtools.tables import width

_DIM, _NORMAL, _CLEAR = "\x1b[2m", "\x1b[0m", "\r\x1b[K"
_INDENT = 7  # "00:12  "
_LEAST = 20  # columns of text, on however narrow a terminal
_CLOSING = ".?!…。？！︒؟۔।"


class Captions:
    """`write` gets what is to be shown. `columns`: of the terminal; None elsewhere."""

    def __init__(self, write: Callable[[str], object], columns: int | None = None) -> None:
        self._write = write
        self._columns = columns
        self._head = ""  # before the text of the last row
        self._row = ""
        self._is_open = False  # an utterance is shown that has not ended
        self._behind = ""

    @property
    def is_sentence(self) -> bool:
        """Whether what is shown of the utterance ends as a sentence does."""
        return self._row.rstrip().endswith(tuple(_CLOSING))

    def add(self, delta: str, began_s: float) -> None:
        """More text; `began_s`: when its utterance began, if it is the first of it."""
        delta = "".join(c if c.isprintable() else " " for c in delta)  # nothing that moves a terminal's cursor
        if not self._is_open:
            delta = delta.lstrip()
            if not delta:
                return
            self._head = f"{int(began_s) // 60:02d}:{int(began_s) % 60:02d}  "
            self._is_open, self._row = True, ""
            if self._columns is None:
                self._write(self._head)
        self._row += delta
        if self._columns is None:
            self._write(delta)
        else:
            self._wrap(self._columns)

    def behind(self, seconds: float | None) -> None:
        """Show how far the text is behind; None: it is not."""
        behind = "" if seconds is None else f"{seconds:.1f} s behind"
        if behind != self._behind:
            self._behind = behind
            if self._is_open and self._columns is not None:
                self._draw()

    def end(self) -> None:
        """The utterance is over."""
        if self._is_open:
            self._write("\n" if self._columns is None else f"{_CLEAR}{self._head}{self._row.rstrip()}\n")
        self._is_open, self._row = False, ""

    def _wrap(self, columns: int) -> None:
        room = max(columns - _INDENT - len(" 00.0 s behind") - 1, _LEAST)
        while width(self._row) > room:
            first = fitting(self._row, room)
            self._write(f"{_CLEAR}{self._head}{self._row[:first].rstrip()}\n")
            self._head, self._row = " " * _INDENT, self._row[first:].lstrip()
        self._draw()

    def _draw(self) -> None:
        behind = f" {_DIM}{self._behind}{_NORMAL}" if self._behind else ""
        self._write(f"{_CLEAR}{self._head}{self._row}{behind}")


def fitting(text: str, room: int) -> int:
    """How many characters of `text` fit into `room` columns, to the end of a word if there is one; at least 1."""
    taken, most = 0, 0
    for character in text:
        taken += width(character)
        if taken > room:
            break
        most += 1
    if most == len(text) or text[most] == " ":
        return max(most, 1)
    return text.rfind(" ", 0, most) + 1 or max(most, 1)
