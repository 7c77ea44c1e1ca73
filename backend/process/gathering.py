"""Coroutines that run together and fail together."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


async def gather_or_cancel(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all coroutines, in order. If one fails, the others are cancelled and its error is raised."""
    coroutines = list(coroutines)
    if len(coroutines) == 1:  # a short clip: a task would cost some turns of the event loop
        return [await coroutines[0]]
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
