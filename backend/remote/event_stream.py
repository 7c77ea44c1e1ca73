"""The event stream of a chat completion, from lines of bytes to pieces of text: OpenAI's format as vLLM writes it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from backend.remote.faults_of_servers import CUT_OFF, FAILED, FOREIGN, ServerFailure

_DATA, _DONE = b"data:", b"[DONE]"


class Piece(NamedTuple):
    """A piece of the answer's text, "" where an event has none. `finish`: why the answer ends, "" while it goes on."""

    text: str
    finish: str


def pieces_of(lines: Iterable[bytes]) -> Iterator[Piece]:
    """The pieces up to the one that ends the answer. Raises ServerFailure where none does."""
    for line in lines:
        if not line.startswith(_DATA):  # an empty line ends an event; a comment keeps the connection alive
            continue
        payload = line[len(_DATA) :].strip()
        if payload == _DONE:
            break
        piece = _piece(payload)
        if piece is not None:
            yield piece
            if piece.finish:
                return
    raise ServerFailure(CUT_OFF)


def _piece(payload: bytes) -> Piece | None:
    """None for an event without a choice, such as one with counts."""
    try:
        event: Any = json.loads(payload)
        if event.get("error"):  # after the status, which said 200
            raise ServerFailure(FAILED)
        if not event["choices"]:
            return None
        choice = event["choices"][0]
        text, finish = choice["delta"].get("content") or "", choice.get("finish_reason") or ""
    except (ValueError, RecursionError, AttributeError, KeyError, IndexError, TypeError):
        raise ServerFailure(FOREIGN) from None
    if not isinstance(text, str) or not isinstance(finish, str):
        raise ServerFailure(FOREIGN)
    return Piece(text, finish)
