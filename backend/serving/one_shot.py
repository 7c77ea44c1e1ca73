"""Work without steps, such as an aligner's batch, in the shape of a session: the scheduler runs nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic

from backend.serving.session_kind import Item, Result


class OneShotSession(Generic[Item, Result]):
    """A session that does all its work in `add`; the next step returns the results."""

    def __init__(self, work: Callable[[Sequence[Item]], Sequence[Result]]) -> None:
        """`work` returns one result for each item, in their order."""
        self._work = work
        self._results: list[tuple[Item, Result]] = []

    def __len__(self) -> int:
        return len(self._results)

    def add(self, items: Sequence[Item]) -> None:
        self._results += zip(items, self._work(items), strict=True)

    def step(self) -> list[tuple[Item, Result]]:
        results, self._results = self._results, []
        return results

    def drop(self, item: Item) -> None:
        """Nothing to save: the item's work is done already."""
