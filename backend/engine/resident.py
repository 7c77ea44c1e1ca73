"""What is in memory: nothing, the lean model, or the aligner-equipped one.

Rules: there is one copy of the recogniser's weights, ever. The first request for times swaps in an instance that is
equipped with the aligner and built around the same recogniser; the lean instance is dropped. One load at a time,
whatever the number of those who ask, and a caller who leaves does not end it for the others. Whoever took an
instance keeps it to the end of his request: a swap, a reload or a Free touches nobody in flight.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from backend.engine.recognizer import Aligner, Loader, Recognizer
from backend.errors import AlignerUnavailable, AsrError, LoadRefused, ModelNotLoaded
from backend.options import LoadOptions

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lean:
    """The recogniser alone."""

    options: LoadOptions
    recognizer: Recognizer


@dataclass(frozen=True)
class Equipped(Lean):
    """The same recogniser with an aligner."""

    aligner: Aligner


class Resident:
    """The one model of this process. Its methods belong to the event loop's thread; loads have their own."""

    def __init__(self, loader: Loader, clock: Callable[[], float] = time.monotonic) -> None:
        self._loader = loader
        self._clock = clock
        self._lock = asyncio.Lock()  # held by whoever changes what is in memory
        self._instance: Lean | None = None
        self._equipping: asyncio.Task[Equipped] | None = None
        self._retry_at = 0.0

    @property
    def loading(self) -> bool:
        return self._lock.locked()

    @property
    def identity(self) -> str:
        """The `Model` of the last successful LoadModel; "" when nothing is loaded."""
        return self._instance.options.model if self._instance else ""

    @property
    def weight_bytes(self) -> dict[str, int]:
        instance = self._instance
        return {
            "recognizer": instance.recognizer.weight_bytes if instance else 0,
            "aligner": instance.aligner.weight_bytes if isinstance(instance, Equipped) else 0,
        }

    def current(self) -> Lean:
        """The instance for a request that begins now. Raises ModelNotLoaded."""
        if self._instance is None:
            raise ModelNotLoaded
        return self._instance

    async def load(self, options: LoadOptions) -> None:
        """Make `options` resident. The same options again: nothing to do. Others: release, then load.

        What can be refused is refused before anything is released; should reading the weights fail after that, the
        old model is loaded again, so that a bad load costs time and nothing else. Raises LoadRefused.
        """
        async with self._lock:
            old = self._instance.options if self._instance else None
            if options == old:
                return
            await asyncio.to_thread(self._loader.inspect, options)
            await self._release()
            try:
                await self._install(options)
            except LoadRefused:
                await asyncio.to_thread(self._loader.reclaim)
                if old is not None:
                    _log.warning("the load failed; loading the model that was there before")
                    await self._install(old)
                raise

    async def free(self) -> None:
        """Drop the model and its memory; requests in flight finish on their own reference."""
        self._instance = None  # at once, even while a load holds the lock
        async with self._lock:
            await self._release()

    async def equipped(self, instance: Lean) -> Equipped:
        """`instance` with an aligner, swapped in as the resident one. Raises AlignerUnavailable."""
        if isinstance(instance, Equipped):
            return instance
        if not instance.options.forced_aligner:
            raise AlignerUnavailable("no aligner is configured")
        if self._equipping is None:
            self._equipping = asyncio.create_task(self._equip(instance))
            self._equipping.add_done_callback(self._equipping_ended)
        return await asyncio.shield(self._equipping)

    async def _install(self, options: LoadOptions) -> None:
        recognizer = await asyncio.to_thread(self._loader.load_recognizer, options)
        self._instance = Lean(options, recognizer)
        self._retry_at = 0.0

    async def _release(self) -> None:
        self._instance = None
        await asyncio.to_thread(self._loader.reclaim)

    async def _equip(self, asked: Lean) -> Equipped:
        async with self._lock:
            instance = self._instance
            if isinstance(instance, Equipped) and instance.recognizer is asked.recognizer:
                return instance
            if self._clock() < self._retry_at:
                raise AlignerUnavailable("the aligner could not be loaded a moment ago")
            try:
                aligner = await asyncio.to_thread(self._loader.load_aligner, asked.options)
            except AsrError as error:
                self._retry_at = self._clock() + asked.options.aligner_retry_s
                _log.warning("the aligner cannot be loaded: %s; next try in %g s", error, asked.options.aligner_retry_s)
                raise AlignerUnavailable("the aligner cannot be loaded") from error
            equipped = Equipped(asked.options, asked.recognizer, aligner)
            if self._instance is asked:  # else it was freed or replaced meanwhile: only this request is equipped
                self._instance = equipped
            return equipped

    def _equipping_ended(self, task: asyncio.Task[Equipped]) -> None:
        self._equipping = None
        if not task.cancelled():
            task.exception()  # everyone who waited has seen it; with nobody left, asyncio would complain
