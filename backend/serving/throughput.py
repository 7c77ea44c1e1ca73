"""How fast the engine answered at its best, so that what cannot be done in time is refused at once."""

from __future__ import annotations


class Throughput:
    """Told of the engine's work and of what came of it. One thread tells; any may ask, or have it forget."""

    def __init__(self) -> None:
        self._best = 0.0  # seconds of audio answered in one second of work
        self._heard_s = self._worked_s = 0.0  # since the engine last had nothing to do

    def worked(self, seconds: float, fullness: float) -> None:
        """In sessions whose places were taken so far (0 to 1): they count as if all had been, which may be free."""
        self._worked_s += seconds * fullness

    def heard(self, seconds: float) -> None:
        """So much audio was answered."""
        self._heard_s += seconds

    def rests(self) -> None:
        """There is nothing to do: what was answered is all that the work was for."""
        if self._heard_s:
            self._best = max(self._best, self._heard_s / max(self._worked_s, 1e-9))
        self._heard_s = self._worked_s = 0.0

    def at_least_s(self, seconds: float) -> float:
        """How long so many seconds of audio take at the very least: twice as fast as they ever were. 0 if none were."""
        return seconds / (2 * self._best) if self._best else 0.0

    def forget(self) -> None:
        """There is another model."""
        self._best = self._heard_s = self._worked_s = 0.0
