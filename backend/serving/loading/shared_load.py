"""A load that any number of requests wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from functools import partial
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class SharedLoad(Generic[T]):
    """For the event loop's thread. What was loaded is not kept here."""

    def __init__(self) -> None:
        self._tasks: dict[Hashable, asyncio.Task[T]] = {}

    async def result(self, load: Callable[[], Coroutine[Any, Any, T]], of: Hashable = None) -> T:
        """What the load of `of` brings that runs already, or else a new one, which is `load`.

        A request that is cancelled does not end the load for the others. Raises what the load raises.
        """
        if of not in self._tasks:
            self._tasks[of] = asyncio.create_task(load())
            self._tasks[of].add_done_callback(partial(self._ended, of))
        return await asyncio.shield(self._tasks[of])

    def _ended(self, of: Hashable, task: asyncio.Task[T]) -> None:
        del self._tasks[of]
        if not task.cancelled():
            task.exception()  # marks it as retrieved: asyncio complains if every request was cancelled meanwhile
