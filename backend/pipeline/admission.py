"""Admission control: limits on the requests in progress, and on the seconds and the bytes of their audio in memory.

- A request is rejected before its file is read, or while it is decoded. What is decoded is never shed, however many
  requests come after it.
- Memory is counted before it is taken: a decoder asks before its samples may grow, and what detection will need of them
  is counted with them. What the machine and its control groups have free is read at each such moment; what was promised
  to others and not taken yet is not free.
- A short recording always has room beside long ones: long ones leave a reserve, which it may use.
- What a request holds is released however the request ends.
- For any thread: decoders ask in their own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf

from backend.audio.waveform import SAMPLE_BYTES, SAMPLE_RATE
from backend.errors import Cancelled, Overloaded, TooLittleAudioMemory
from backend.process.machine.available_memory import available_memory, total_memory
from backend.process.request_stats import RequestStats
from backend.thresholds import AUDIO_MEMORY_FACTOR, AUDIO_MEMORY_RESERVE_BYTES, AUDIO_MEMORY_SHARE

_MAX_AUDIO_S = 24 * 3600.0  # 5 GiB of samples: four of the longest recordings that are accepted by default
_ALWAYS_ADMITTED_S = 60.0  # recordings up to this length are exempt: a thousand of them are 17 h
_MAX_REQUESTS = 1000
_MAX_AGE_S = 0.1
_BYTES_PER_S = SAMPLE_RATE * SAMPLE_BYTES


@dataclass
class _Share:
    """What a request has in memory. `audio_s`: seconds of audio, as far as it is known that there are so many.
    `promised`: bytes that it may take, at its peak; `held`: bytes of these that it has taken.
    """

    audio_s: float = 0.0
    promised: float = 0.0
    held: float = 0.0

    @property
    def is_short(self) -> bool:
        return self.promised <= AUDIO_MEMORY_FACTOR * _BYTES_PER_S * _ALWAYS_ADMITTED_S


class Admission:
    """At most `max_requests` at once, with `max_audio_s` seconds of audio in memory.

    A recording of any length is admitted if no other is in memory and its memory is there. `available`: free bytes.
    """

    def __init__(
        self,
        max_audio_s: float = _MAX_AUDIO_S,
        max_requests: int = _MAX_REQUESTS,
        available: Callable[[], float] = lambda: available_memory().memory,
    ) -> None:
        self._max_audio_s = max_audio_s
        self._max_requests = max_requests
        self._available = available
        self._default_bytes = AUDIO_MEMORY_SHARE * total_memory()
        self._shares: dict[RequestStats, _Share] = {}
        self._free, self._read_at = 0.0, -inf
        self._lock = threading.Lock()

    @property
    def audio_s(self) -> float:
        """Seconds of audio in memory."""
        with self._lock:
            return sum(share.audio_s for share in self._shares.values())

    @contextmanager
    def admitted(self, request: RequestStats) -> Iterator[None]:
        """Admits the request for the time spent inside. Raises Overloaded, before the request's file is read."""
        with self._lock:
            if len(self._shares) >= self._max_requests:
                raise Overloaded
            self._shares[request] = _Share()
        try:
            yield
        finally:
            with self._lock:
                del self._shares[request]

    def reserve(
        self,
        request: RequestStats,
        audio_s: float,
        room_s: float | None = None,
        held_bytes: float = 0.0,
        max_bytes: float | None = None,
    ) -> None:
        """An admitted request holds `audio_s` seconds of audio, or more, and may grow to `room_s` (None: `audio_s`).

        `held_bytes`: of that, what is in memory already. `max_bytes`: of all requests together; None: a share of the
        machine's memory. Raises Overloaded, TooLittleAudioMemory, and Cancelled if the request has ended.
        """
        room_s = audio_s if room_s is None else room_s
        new = _Share(audio_s, AUDIO_MEMORY_FACTOR * _BYTES_PER_S * room_s, held_bytes)
        if (share := self._shares.get(request)) is None:
            raise Cancelled
        grows = new.promised > share.promised
        free = self._free_bytes(new) if grows else inf  # not under the lock, for which the event loop may wait
        with self._lock:
            if request not in self._shares:
                raise Cancelled
            others = [each for each in self._shares.values() if each is not share]
            others_s = sum(each.audio_s for each in others)
            if audio_s > _ALWAYS_ADMITTED_S and others_s and others_s + audio_s > self._max_audio_s:
                raise Overloaded
            if grows:
                self._check_memory(new, others, free, self._default_bytes if max_bytes is None else max_bytes)
            self._shares[request] = new

    def settle(self, request: RequestStats) -> None:
        """The request needs no more memory than its samples take."""
        with self._lock:
            share = self._shares[request]
            share.promised = share.held = _BYTES_PER_S * share.audio_s

    def _check_memory(self, new: _Share, others: list[_Share], free: float, max_bytes: float) -> None:
        if not new.is_short and new.promised + sum(each.promised for each in others) > max_bytes:
            raise TooLittleAudioMemory
        to_be_taken = sum(max(each.promised - each.held, 0.0) for each in (new, *others))
        if to_be_taken + (0.0 if new.is_short else AUDIO_MEMORY_RESERVE_BYTES) > free:
            raise TooLittleAudioMemory

    def _free_bytes(self, new: _Share) -> float:
        """What is free; for a short recording, for which a millisecond counts, as of a tenth of a second ago."""
        now = time.monotonic()
        if not new.is_short or now - self._read_at > _MAX_AGE_S:
            self._free, self._read_at = self._available(), now
        return self._free


@dataclass(frozen=True)
class AudioMemory:
    """One admitted request's share of the memory for audio. `max_bytes`: see Admission.reserve."""

    admission: Admission
    request: RequestStats
    max_bytes: float | None = None

    def reserve(self, audio_s: float, room_s: float | None = None, held_bytes: float = 0.0) -> None:
        """See Admission.reserve."""
        self.admission.reserve(self.request, audio_s, room_s, held_bytes, self.max_bytes)

    def settle(self) -> None:
        """See Admission.settle."""
        self.admission.settle(self.request)
