"""A load that failed a while ago: requests until the next try get its cause, and load nothing."""

from __future__ import annotations

from collections.abc import Callable


class RecentFailure:
    """For the event loop's thread."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock`: seconds."""
        self._clock = clock
        self._retry_at, self._cause = 0.0, ""

    @property
    def cause(self) -> str:
        """Why the load failed; "" if it may be tried."""
        return self._cause if self._clock() < self._retry_at else ""

    def remember(self, cause: str, retry_s: float) -> None:
        """The load has failed for `cause`, and is not tried for so many seconds."""
        self._retry_at, self._cause = self._clock() + retry_s, cause

    def forget(self) -> None:
        """The next request tries again."""
        self._cause = ""
