"""Who uses the resident model, and how long nobody has: what idle release is decided by.

A request uses the model from its admission to its end, a live stream from its opening, and the aligner while it aligns.
Health, Status and metrics are no use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class _Uses:
    count: int = 0
    ended_at: float = 0.0


class Usage:
    """For the event loop's thread."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock`: seconds."""
        self._clock = clock
        self._of_model, self._of_aligner = _Uses(), _Uses()
        self.restart()

    def restart(self) -> None:
        """A model was loaded or freed: the idle time begins now."""
        self._of_model.ended_at = self._of_aligner.ended_at = self._clock()

    @contextmanager
    def model(self) -> Iterator[None]:
        with self._used(self._of_model):
            yield

    @contextmanager
    def aligner(self) -> Iterator[None]:
        with self._used(self._of_aligner):
            yield

    @property
    def idle_s(self) -> float:
        """Seconds since the last use of the model ended; 0 while there is one."""
        return self._idle_s(self._of_model)

    @property
    def aligner_idle_s(self) -> float:
        """The same of the aligner."""
        return self._idle_s(self._of_aligner)

    def _idle_s(self, uses: _Uses) -> float:
        return 0.0 if uses.count else self._clock() - uses.ended_at

    @contextmanager
    def _used(self, uses: _Uses) -> Iterator[None]:
        uses.count += 1
        try:
            yield
        finally:
            uses.count -= 1
            uses.ended_at = self._clock()
