"""Work that is done in one go, in the shape of a session: the scheduler knows only those."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class ScheduledSession(Protocol):
    """What the scheduler asks of a session, see serving/protocols.Session: items come, and leave as results."""

    def __len__(self) -> int: ...
    def add(self, items: Sequence[Any], /) -> None: ...
    def step(self) -> Sequence[tuple[Any, Any]]: ...
    def drop(self, item: Any, /) -> None: ...


class OneShotSession:
    """A session whose items are done when they have come."""

    def __init__(self, work: Callable[[Sequence[Any]], Sequence[Any]]) -> None:
        self._work = work
        self._done: list[tuple[Any, Any]] = []

    def __len__(self) -> int:
        return len(self._done)

    def add(self, items: Sequence[Any]) -> None:
        self._done += zip(items, self._work(items), strict=True)

    def step(self) -> list[tuple[Any, Any]]:
        done, self._done = self._done, []
        return done

    def drop(self, item: Any) -> None:
        """It is done already."""


@dataclass(frozen=True)
class OneShotWork:
    """Begins batches of some work; equal for equal work, so that jobs of the same work find each other."""

    work: Callable[[Sequence[Any]], Sequence[Any]]

    def __call__(self) -> OneShotSession:
        return OneShotSession(self.work)
