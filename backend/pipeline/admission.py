"""Who comes in: so many requests at once, and so much sound of theirs in memory.

Rules: too much is refused here, before the file is read or once its length is known, and nowhere further in: whoever
has come in is heard to the end, whatever comes after it. A command always finds room beside long recordings. What is
held is given back however the request ends. For the event loop's thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from backend.errors import Overloaded
from backend.process.request_stats import RequestStats

_LONGEST_S = 24 * 3600.0  # 5 GiB of samples; four of the longest recordings that are accepted by default
_SHORT_S = 60.0  # are always held: a thousand of them are 17 h
_MOST_REQUESTS = 1000


class Admission:
    """`longest_s` of sound, and `most_requests`, at once. One recording is taken however long, if no other is held."""

    def __init__(self, longest_s: float = _LONGEST_S, most_requests: int = _MOST_REQUESTS) -> None:
        self._longest_s = longest_s
        self._most_requests = most_requests
        self._held: dict[RequestStats, float] = {}  # seconds of sound by request; 0 until it is decoded

    @property
    def held_s(self) -> float:
        return sum(self._held.values())

    @contextmanager
    def admitted(self, request: RequestStats) -> Iterator[None]:
        """The request is in the house inside. Raises Overloaded, before its file is read."""
        if len(self._held) >= self._most_requests:
            raise Overloaded
        self._held[request] = 0.0
        try:
            yield
        finally:
            del self._held[request]

    def hold(self, request: RequestStats, seconds: float) -> None:
        """The request, which was admitted, has so much sound in memory until it ends. Raises Overloaded."""
        held_s = self.held_s
        if seconds > _SHORT_S and held_s and held_s + seconds > self._longest_s:
            raise Overloaded
        self._held[request] = seconds
