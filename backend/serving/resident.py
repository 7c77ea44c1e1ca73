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
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, ParamSpec, TypeVar

from backend.errors import AlignerUnavailable, AsrError, DeviceLost, LoadRefused, ModelNotLoaded, TooLittleMemory
from backend.options import LoadOptions
from backend.serving.faults import refusal_of, untraced
from backend.serving.loaded_models import LoadedModels
from backend.serving.protocols import Aligner, Loader, Recognizer

_log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
AlignerState = Literal["none", "waiting", "loaded", "failed"]  # waiting: nobody has asked for times yet

_TOO_LARGE = "the device has too little memory for the aligner"


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

    def __init__(
        self,
        loader: Loader,
        clock: Callable[[], float] = time.monotonic,
        tell: Callable[[bool], None] = lambda loaded: None,
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        """`tell` is called whenever there may be a model or none from then on, `lost` when a load lost the device."""
        self._loader = loader
        self._clock = clock
        self._tell = tell
        self._lost = lost
        self._thread = ThreadPoolExecutor(1, "loader")  # not the loop's pool: recordings of hours are decoded there
        self._turn = asyncio.Lock()  # held by who makes other options resident; one who need not, waits for no aligner
        self._lock = asyncio.Lock()  # held by whoever loads
        self._instance: Lean | None = None
        self._held = LoadedModels(lambda: self._thread.submit(loader.reclaim))
        self._freed = 0  # how often: a load that was overtaken by Free must not bring its model back
        self._equipping: tuple[Recognizer, asyncio.Task[Equipped]] | None = None
        self._retry_at = 0.0
        self._expecting = False

    def expect(self) -> None:
        """A load will come: begin with what it needs whatever it loads. Waits for nothing; a load waits for it."""
        if not self._expecting:
            self._expecting = True
            self._thread.submit(self._loader.prepare)

    @property
    def loading(self) -> bool:
        return self._lock.locked()

    @property
    def identity(self) -> str:
        """The `Model` of the last successful LoadModel; "" when nothing is loaded."""
        return self._instance.options.model if self._instance else ""

    @property
    def weight_bytes(self) -> dict[str, int]:
        """Of all that is in memory still, also where only a request in flight holds it. From any thread."""
        return self._held.weight_bytes

    @property
    def aligner_state(self) -> AlignerState:
        instance = self._instance
        if isinstance(instance, Equipped):
            return "loaded"
        if instance is None or not instance.options.forced_aligner:
            return "none"
        return "failed" if self._clock() < self._retry_at else "waiting"

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
        freed = self._freed
        async with self._turn:
            if self._instance is not None and self._instance.options == options:
                return
            async with self._lock:
                await self._replace(options, freed)

    async def free(self) -> None:
        """Drop the model and its memory; waits for nothing, not even for a load that runs: that one is refused.

        Requests in flight finish on their own reference.
        """
        self._freed += 1
        self._hold(None)
        self._thread.submit(self._loader.reclaim)

    async def equipped(self, instance: Lean) -> Equipped:
        """`instance` with an aligner, swapped in as the resident one. Raises AlignerUnavailable."""
        if isinstance(instance, Equipped):
            return instance
        if not instance.options.forced_aligner:
            raise AlignerUnavailable("no aligner is configured")
        if self._equipping is None or self._equipping[0] is not instance.recognizer:
            task = asyncio.create_task(self._equip(instance))
            task.add_done_callback(self._equipping_ended)
            self._equipping = (instance.recognizer, task)
        return await asyncio.shield(self._equipping[1])

    async def _do(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """`work` in the loader's thread. What is not an AsrError goes to the log; what it raises, see refusal_of."""
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._thread, _in_passing, lambda: work(*arguments, **named)
            )
        except Exception as error:  # foreign code: checkpoints, drivers and the file system fail in their own ways
            refusal = refusal_of(error)
            if not isinstance(error, AsrError):
                _log.exception("loading failed")
            if isinstance(refusal, DeviceLost):
                self._lost()
            if refusal is error:
                raise
            raise refusal from error

    async def _replace(self, options: LoadOptions, freed: int) -> None:
        old = self._instance.options if self._instance else None
        await self._do(self._loader.inspect, options)
        self._refuse_if_freed_since(freed)
        self._hold(None)
        await self._do(self._loader.reclaim)
        failure = await self._failure_of(self._install(options, freed))
        if failure is None:
            return
        if isinstance(failure, DeviceLost):  # nothing can be loaded there again
            raise failure
        await self._do(self._loader.reclaim)
        if old is not None and freed == self._freed:
            await self._restore(old, freed)
        raise failure

    def _hold(self, instance: Lean | None) -> None:
        self._instance = instance
        self._tell(instance is not None)

    async def _install(self, options: LoadOptions, freed: int) -> None:
        recognizer = await self._do(self._loader.load_recognizer, options)
        self._refuse_if_freed_since(freed)
        self._held.watch("recognizer", recognizer)
        self._hold(Lean(options, recognizer))
        self._retry_at = 0.0

    def _refuse_if_freed_since(self, freed: int) -> None:
        if freed != self._freed:
            raise LoadRefused("the model was freed while it was being loaded")

    async def _restore(self, old: LoadOptions, freed: int) -> None:
        _log.warning("the load failed; loading the model that was there before")
        failure = await self._failure_of(self._install(old, freed))
        if failure is not None:
            _log.error("the model that was there before cannot be loaded either: %s", failure)
            await self._do(self._loader.reclaim)

    @staticmethod
    async def _failure_of(load: Coroutine[Any, Any, None]) -> LoadRefused | None:
        """Its refusal, without the trace: that would hold what had been loaded so far while another model is loaded."""
        try:
            await load
        except LoadRefused as refusal:
            return untraced(refusal)
        return None

    async def _equip(self, asked: Lean) -> Equipped:
        async with self._lock:
            instance = self._instance
            if isinstance(instance, Equipped) and instance.recognizer is asked.recognizer:
                return instance
            if instance is asked and self._clock() < self._retry_at:
                raise AlignerUnavailable("the aligner could not be loaded a moment ago")
            try:
                aligner = await self._do(self._loader.load_aligner, asked.options)
            except AsrError as error:
                if self._instance is asked:
                    self._retry_at = self._clock() + asked.options.aligner_retry_s
                _log.warning("the aligner cannot be loaded: %s; next try in %g s", error, asked.options.aligner_retry_s)
                untraced(error)  # it would hold what had been loaded so far
                if not isinstance(error, DeviceLost):
                    await self._do(self._loader.reclaim)
                cause = _TOO_LARGE if isinstance(error, TooLittleMemory) else "the aligner cannot be loaded"
                raise AlignerUnavailable(cause) from error
            self._held.watch("aligner", aligner)
            equipped = Equipped(asked.options, asked.recognizer, aligner)
            if self._instance is asked:  # else it was freed or replaced meanwhile: only this request is equipped
                self._instance = equipped
            return equipped

    def _equipping_ended(self, task: asyncio.Task[Equipped]) -> None:
        if self._equipping is not None and self._equipping[1] is task:
            self._equipping = None
        if not task.cancelled():
            task.exception()  # everyone who waited has seen it; with nobody left, asyncio would complain


def _in_passing(work: Callable[[], T]) -> T:
    """`work` in a thread that ends with it.

    A thread that ever ran an OpenMP loop keeps its workers until it ends, and with more of them than processors libgomp
    puts every waiting thread to sleep at once: a step of decoding would take half as long again.
    """
    with ThreadPoolExecutor(1, "loading") as thread:
        return thread.submit(work).result()
