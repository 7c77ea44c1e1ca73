"""Many requests -> batches for the one thread that runs the models.

Rules: the worker takes what waits when it is free, oldest first, and lets others of the same kind and like length
ride along; nothing waits for a batch to fill. One job's failure is its own: a failed batch is run again one by one.
The queue is bounded in seconds of audio. Cancelling a future that still waits removes its job.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from backend.errors import AsrError, EngineFailure, OutOfMemory, Overloaded

_log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")
Work = Callable[[Sequence[Item]], Sequence[Result]]

_LONGEST_QUEUE_S = 24 * 3600.0  # four of the longest recordings that are accepted by default
_LIKE_LENGTH = 2.0  # a batch costs its longest member: none is padded to more than twice its own length


@dataclass(eq=False)
class _Job:
    work: Callable[[Sequence[Any]], Sequence[Any]]  # a bound method of the model: jobs of one batch share it
    item: Any
    seconds: float
    most: int
    future: Future[Any]


class Scheduler:
    """Owns the model thread. `submit` is for the event loop's thread."""

    def __init__(self, longest_queue_s: float = _LONGEST_QUEUE_S) -> None:
        self._waiting: deque[_Job] = deque()
        self._waiting_s = 0.0
        self._longest_queue_s = longest_queue_s
        self._running = 0
        self._stopping = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        with self._changed:
            return bool(self._running or self._waiting)

    async def submit(self, work: Work[Item, Result], item: Item, *, seconds: float, most: int) -> Result:
        """`work([..., item, ...])`'s result for `item`, batched with at most `most - 1` others.

        `seconds` is the item's length of audio. Raises Overloaded at once when too much waits, OutOfMemory,
        EngineFailure, or the AsrError that `work` raised.
        """
        future: Future[Result] = Future()
        with self._changed:
            if self._waiting and self._waiting_s + seconds > self._longest_queue_s:
                raise Overloaded
            self._waiting_s += seconds
            self._waiting.append(_Job(work, item, seconds, most, future))
            self._changed.notify()
        return await asyncio.wrap_future(future)

    def stop(self) -> None:
        """End the thread after the batch it runs; what waits is cancelled."""
        with self._changed:
            self._stopping = True
            while self._waiting:
                self._waiting.popleft().future.cancel()
            self._changed.notify()

    def _run(self) -> None:
        while batch := self._next_batch():
            _answer(batch)
            del batch  # while the thread waits for the next one, it must not hold on to this one's model and sound
            with self._changed:
                self._running = 0

    def _next_batch(self) -> list[_Job]:
        """The next jobs to run together; empty when the scheduler stops."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._waiting or self._stopping)
                if self._stopping:
                    return []
                batch = self._take()
                if batch:
                    self._running = len(batch)
                    return batch

    def _take(self) -> list[_Job]:
        self._waiting = deque(job for job in self._waiting if not job.future.cancelled())
        batch: list[_Job] = []
        left: deque[_Job] = deque()
        for job in self._waiting:
            oldest = batch[0] if batch else job
            fits = job.work == oldest.work and _are_alike(job.seconds, oldest.seconds) and len(batch) < oldest.most
            if not fits:
                left.append(job)
            elif job.future.set_running_or_notify_cancel():  # False: cancelled a moment ago
                batch.append(job)
        self._waiting, self._waiting_s = left, sum(job.seconds for job in left)
        return batch


def _are_alike(seconds: float, other: float) -> bool:
    return max(seconds, other) <= _LIKE_LENGTH * max(min(seconds, other), 0.5)


def _answer(batch: list[_Job]) -> None:
    """Run a batch and give every job its result or its error."""
    failure = _attempt(batch)
    if failure is None:
        return
    if len(batch) == 1:
        batch[0].future.set_exception(failure)
        return
    _log.warning("a batch of %d failed (%s); running its members alone", len(batch), type(failure).__name__)
    for job in batch:
        _answer([job])


def _attempt(batch: list[_Job]) -> AsrError | None:
    """Run a batch once. What it raised is not kept: its traceback would hold the batch's memory during the retries."""
    try:
        answered = list(zip(batch, batch[0].work([job.item for job in batch]), strict=True))
    except Exception as error:  # noqa: BLE001 - models and drivers raise whatever they like; nothing may end this thread
        return _cause(error)
    for job, result in answered:
        job.future.set_result(result)
    return None


def _cause(error: Exception) -> AsrError:
    if isinstance(error, AsrError):
        return error
    _log.error("the model failed", exc_info=error)
    # torch.OutOfMemoryError is a RuntimeError; the CPU allocator's has no class of its own
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "allocate memory" in str(error):
        return OutOfMemory()
    return EngineFailure()
