"""Admission control: limits on the requests in progress, and on the seconds of their audio in memory.

- A request is rejected here or not at all: before its file is read, or when its length is known. Admitted work is never
  shed, however many requests come after it.
- A short recording always has room beside long ones.
- What a request holds is released however the request ends.
- For the event loop's thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from backend.errors import Overloaded
from backend.process.request_stats import RequestStats

_MAX_AUDIO_S = 24 * 3600.0  # 5 GiB of samples: four of the longest recordings that are accepted by default
_ALWAYS_ADMITTED_S = 60.0  # recordings up to this length are exempt: a thousand of them are 17 h
_MAX_REQUESTS = 1000


class Admission:
    """At most `max_requests` at once, with `max_audio_s` seconds of audio in memory.

    A recording of any length is admitted if no other is in memory.
    """

    def __init__(self, max_audio_s: float = _MAX_AUDIO_S, max_requests: int = _MAX_REQUESTS) -> None:
        self._max_audio_s = max_audio_s
        self._max_requests = max_requests
        self._admitted: dict[RequestStats, float] = {}  # seconds of audio by request; 0 until it is decoded

    @property
    def audio_s(self) -> float:
        """Seconds of audio in memory."""
        return sum(self._admitted.values())

    @contextmanager
    def admitted(self, request: RequestStats) -> Iterator[None]:
        """Admits the request for the time spent inside. Raises Overloaded, before the request's file is read."""
        if len(self._admitted) >= self._max_requests:
            raise Overloaded
        self._admitted[request] = 0.0
        try:
            yield
        finally:
            del self._admitted[request]

    def reserve(self, request: RequestStats, audio_s: float) -> None:
        """An admitted request holds `audio_s` seconds of audio until it ends. Raises Overloaded."""
        others_s = self.audio_s
        if audio_s > _ALWAYS_ADMITTED_S and others_s and others_s + audio_s > self._max_audio_s:
            raise Overloaded
        self._admitted[request] = audio_s
