"""The one model of this process: nothing, the lean instance, the same equipped with an aligner, or an aligner alone.

Rules: there is one copy of the recogniser's weights, ever (law 1). The first request for times loads the aligner and
swaps in an equipped instance around the same recogniser; the lean instance is dropped. One load runs at a time, however
many requests ask for it, and a request that is cancelled does not end it for the others. A request keeps the instance
that it started with to its end, so a swap, a reload or a Free disturbs no request in flight.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, ParamSpec, TypeVar, overload

from backend.errors import AlignerUnavailable, AsrError, DeviceLost, LoadRefused, ModelNotLoaded, TooLittleMemory
from backend.options.load_options import LoadOptions
from backend.serving.faults import refusal_of, untraced
from backend.serving.loaded_models import LoadedModels
from backend.serving.model_instance import AlignerAlone, Equipped, Instance, Lean, WithAligner
from backend.serving.protocols import Kind, Loader, Recognizer

_log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
AlignerState = Literal["none", "waiting", "loaded", "failed"]  # waiting: no request has asked for times yet

_TOO_LARGE = "the device has too little memory for the aligner"


class Resident:
    """Owns the loader's thread. Its methods are for the event loop's thread; loads run in threads of their own."""

    def __init__(
        self,
        loader: Loader,
        clock: Callable[[], float] = time.monotonic,
        on_state_change: Callable[[bool], None] = lambda loaded: None,
        on_device_lost: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_state_change` is called with whether a model is loaded, each time that may have changed.

        `on_device_lost` is called when a load lost the device.
        """
        self._loader = loader
        self._clock = clock
        self._on_state_change = on_state_change
        self._on_device_lost = on_device_lost
        self._thread = ThreadPoolExecutor(1, "loader")  # not the event loop's pool, which hours of audio keep busy
        # LoadModels take turns by the first lock and every load holds the second one, so that a LoadModel of the same
        # options, which loads nothing, does not wait for an aligner that is being loaded.
        self._replace_lock = asyncio.Lock()
        self._load_lock = asyncio.Lock()
        self._instance: Instance | None = None
        self._loaded_models = LoadedModels(on_collected=lambda: self._thread.submit(loader.reclaim))
        self._free_count = 0  # how often Free was called: a load that it overtook must not bring its model back
        self._equip_task: tuple[Recognizer, asyncio.Task[Equipped]] | None = None
        self._retry_at = 0.0
        self._prepared = False

    def prepare(self) -> None:
        """Start the imports that every load needs, once, and return at once: a load waits for them."""
        if not self._prepared:
            self._prepared = True
            self._thread.submit(self._loader.prepare)

    @property
    def loading(self) -> bool:
        return self._load_lock.locked()

    @property
    def identity(self) -> str:
        """The `Model` of the last successful LoadModel; "" when nothing is loaded."""
        return self._instance.options.model if self._instance else ""

    @property
    def weight_bytes(self) -> dict[str, int]:
        """Of all models in memory, also where only a request in flight holds them. From any thread."""
        return self._loaded_models.weight_bytes

    @property
    def aligner_state(self) -> AlignerState:
        instance = self._instance
        if isinstance(instance, WithAligner):
            return "loaded"
        if instance is None or not instance.options.forced_aligner:
            return "none"
        return "failed" if self._clock() < self._retry_at else "waiting"

    def current(self) -> Instance:
        """The instance for a request that starts now. Raises ModelNotLoaded."""
        if self._instance is None:
            raise ModelNotLoaded
        return self._instance

    async def load(self, options: LoadOptions) -> None:
        """Make `options` resident. The same options again: nothing to do. Others: release the old model, then load.

        What a moment's look can refuse is refused before the release. If the load fails after that, the old model is
        loaded again, so that a bad load costs time and nothing else. Raises LoadRefused.
        """
        free_count = self._free_count
        async with self._replace_lock:
            if self._instance is not None and self._instance.options == options:
                return
            async with self._load_lock:
                await self._replace(options, free_count)

    async def free(self) -> None:
        """Drop the model. Waits for nothing: a load that runs is refused at its end.

        Requests in flight keep the model in memory to their end.
        """
        self._free_count += 1
        self._set_instance(None)
        self._thread.submit(self._loader.reclaim)

    @overload
    async def equipped(self, instance: Lean) -> Equipped: ...
    @overload
    async def equipped(self, instance: AlignerAlone) -> AlignerAlone: ...
    @overload
    async def equipped(self, instance: Instance) -> WithAligner: ...

    async def equipped(self, instance: Instance) -> WithAligner:
        """`instance` with an aligner, which is swapped in as the resident one. Raises AlignerUnavailable."""
        if isinstance(instance, WithAligner):
            return instance
        if not instance.options.forced_aligner:
            raise AlignerUnavailable("no aligner is configured")
        if self._equip_task is None or self._equip_task[0] is not instance.recognizer:
            task = asyncio.create_task(self._equip(instance))
            task.add_done_callback(self._equip_ended)
            self._equip_task = (instance.recognizer, task)
        return await asyncio.shield(self._equip_task[1])

    async def _in_loader_thread(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Run `work` there. Foreign exceptions are logged and raised as refusal_of says."""
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._thread, _in_short_lived_thread, lambda: work(*arguments, **named)
            )
        except Exception as error:  # foreign code: checkpoints, drivers and the file system fail in their own ways
            refusal = refusal_of(error)
            if not isinstance(error, AsrError):
                _log.exception("loading failed")
            if isinstance(refusal, DeviceLost):
                self._on_device_lost()
            if refusal is error:
                raise
            raise refusal from error

    async def _replace(self, options: LoadOptions, free_count: int) -> None:
        old = (self._instance.options, _kind(self._instance)) if self._instance else None
        kind = await self._in_loader_thread(self._loader.inspect, options)
        self._refuse_if_freed_since(free_count)
        self._set_instance(None)
        await self._in_loader_thread(self._loader.reclaim)
        refusal = await self._refusal_in(self._install(options, kind, free_count))
        if refusal is None:
            return
        if isinstance(refusal, DeviceLost):  # nothing can be loaded there again
            raise refusal
        await self._in_loader_thread(self._loader.reclaim)
        if old is not None and free_count == self._free_count:
            await self._restore(*old, free_count)
        raise refusal

    def _set_instance(self, instance: Instance | None) -> None:
        self._instance = instance
        self._on_state_change(instance is not None)

    async def _install(self, options: LoadOptions, kind: Kind, free_count: int) -> None:
        self._retry_at = 0.0
        if kind == "aligner":
            aligner = await self._in_loader_thread(self._loader.load_aligner, options)
            self._refuse_if_freed_since(free_count)
            self._loaded_models.add("aligner", aligner)
            self._set_instance(AlignerAlone(options, aligner))
            return
        recognizer = await self._in_loader_thread(self._loader.load_recognizer, options)
        self._refuse_if_freed_since(free_count)
        self._loaded_models.add("recognizer", recognizer)
        self._set_instance(Lean(options, recognizer))

    def _refuse_if_freed_since(self, free_count: int) -> None:
        if free_count != self._free_count:
            raise LoadRefused("the model was freed while it was being loaded")

    async def _restore(self, old: LoadOptions, kind: Kind, free_count: int) -> None:
        _log.warning("the load failed; loading the model that was there before")
        refusal = await self._refusal_in(self._install(old, kind, free_count))
        if refusal is not None:
            _log.error("the model that was there before cannot be loaded either: %s", refusal)
            await self._in_loader_thread(self._loader.reclaim)

    @staticmethod
    async def _refusal_in(load: Coroutine[Any, Any, None]) -> LoadRefused | None:
        """The load's refusal, without its traceback: that would keep what was loaded while the next model loads."""
        try:
            await load
        except LoadRefused as refusal:
            return untraced(refusal)
        return None

    async def _equip(self, lean: Lean) -> Equipped:
        async with self._load_lock:
            instance = self._instance
            if isinstance(instance, Equipped) and instance.recognizer is lean.recognizer:
                return instance
            if instance is lean and self._clock() < self._retry_at:
                raise AlignerUnavailable("the aligner could not be loaded a moment ago")
            try:
                aligner = await self._in_loader_thread(self._loader.load_aligner, lean.options)
            except AsrError as error:
                if self._instance is lean:
                    self._retry_at = self._clock() + lean.options.aligner_retry_s
                _log.warning("the aligner cannot be loaded: %s; next try in %g s", error, lean.options.aligner_retry_s)
                untraced(error)  # its traceback would keep the half-loaded aligner
                if not isinstance(error, DeviceLost):
                    await self._in_loader_thread(self._loader.reclaim)
                cause = _TOO_LARGE if isinstance(error, TooLittleMemory) else "the aligner cannot be loaded"
                raise AlignerUnavailable(cause) from error
            self._loaded_models.add("aligner", aligner)
            equipped = Equipped(lean.options, lean.recognizer, aligner)
            if self._instance is lean:  # else it was freed or replaced meanwhile: only these requests are equipped
                self._instance = equipped
            return equipped

    def _equip_ended(self, task: asyncio.Task[Equipped]) -> None:
        if self._equip_task is not None and self._equip_task[1] is task:
            self._equip_task = None
        if not task.cancelled():
            task.exception()  # marks it as retrieved: asyncio complains if every request was cancelled meanwhile


def _kind(instance: Instance) -> Kind:
    return "aligner" if isinstance(instance, AlignerAlone) else "recognizer"


def _in_short_lived_thread(work: Callable[[], T]) -> T:
    """Run `work` in a thread that ends with it.

    A thread that ever ran an OpenMP loop keeps its workers until it ends. With more workers than processors libgomp
    puts a waiting thread to sleep at once, and a decode step takes half as long again.
    """
    with ThreadPoolExecutor(1, "loading") as thread:
        return thread.submit(work).result()
