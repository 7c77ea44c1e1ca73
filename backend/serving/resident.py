"""The one model of this process: nothing, the lean instance, the same equipped with an aligner, or an aligner alone.

Rules: there is one copy of the recogniser's weights, ever (law 1). The first request for times loads the aligner and
swaps in an equipped instance around the same recogniser; the lean instance is dropped. One load runs at a time, however
many requests ask for it, and a request that is cancelled does not end it for the others. A request keeps the instance
that it started with to its end, so a swap, a reload or a Free disturbs no request in flight. A LoadModel that names the
same recogniser keeps it: what differs, the aligner say, is exchanged around it. A model whose weights were released for
idleness (idle/) is resident still: the next request loads it again, and the others wait for the same load.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Literal, overload

from backend.errors import (
    AlignerUnavailable,
    AsrError,
    DeviceLost,
    LoadRefused,
    ModelNotLoaded,
    TooLittleMemory,
    named,
)
from backend.options.load_options import LoadOptions
from backend.serving.faults import untraced
from backend.serving.idle.unloaded import UnloadedModel
from backend.serving.idle.usage import Usage
from backend.serving.loaded_models import LoadedModels
from backend.serving.loader_thread import LoaderThread
from backend.serving.model_instance import AlignerAlone, Equipped, Instance, Lean, WithAligner
from backend.serving.protocols import Kind, Loader

_log = logging.getLogger(__name__)

AlignerState = Literal["none", "waiting", "loaded", "failed"]  # waiting: no request has asked for times yet
ModelState = Literal["none", "loading", "loaded", "unloaded"]  # unloaded: released for idleness

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
        self._thread = LoaderThread(loader, on_device_lost)
        # LoadModels take turns by the first lock and every load holds the second one, so that a LoadModel of the same
        # options, which loads nothing, does not wait for an aligner that is being loaded.
        self._replace_lock = asyncio.Lock()
        self._load_lock = asyncio.Lock()
        self.usage = Usage(clock)
        self.releases: Counter[str] = Counter(aligner=0, model=0)  # of idle models, by what was released
        self.reloads = 0  # of models that had been released
        self._instance: Instance | None = None
        self._unloaded: UnloadedModel | None = None
        self._reload_task: asyncio.Task[Instance] | None = None
        self._loaded_models = LoadedModels(on_collected=self._thread.reclaim_soon)
        self._free_count = 0  # how often Free was called: a load that it overtook must not bring its model back
        self._equip_task: tuple[Lean, asyncio.Task[Equipped]] | None = None
        self._retry_at, self._aligner_failure = 0.0, ""

    @property
    def loading(self) -> bool:
        return self._load_lock.locked()

    @property
    def identity(self) -> str:
        """The `Model` of the last successful LoadModel; "" when nothing is loaded."""
        options = self.options
        return options.model if options else ""

    @property
    def options(self) -> LoadOptions | None:
        """Those of the resident model, its weights may be released; None without a model. From any thread."""
        model = self._instance or self._unloaded
        return model.options if model else None

    @property
    def aligns(self) -> bool:
        """Whether the resident model, its weights may be released, finds the times of known texts."""
        model = self._instance or self._unloaded
        return model is not None and model.aligns

    @property
    def weight_bytes(self) -> dict[str, int]:
        """Of all models in memory, also where only a request in flight holds them. From any thread."""
        return self._loaded_models.weight_bytes

    @property
    def aligner_state(self) -> AlignerState:
        options = self.options
        if isinstance(self._instance, WithAligner):
            return "loaded"
        if options is None or not options.forced_aligner:
            return "none"
        return "failed" if self._clock() < self._retry_at else "waiting"

    @property
    def state(self) -> ModelState:
        """From any thread."""
        if self._instance is not None:
            return "loaded"
        return "loading" if self.loading else "unloaded" if self._unloaded is not None else "none"

    def check_loaded(self) -> None:
        """Raises ModelNotLoaded. A model that was released for idleness is loaded: a request brings it back."""
        if self.options is None:
            raise ModelNotLoaded

    def current(self) -> Instance:
        """The instance in memory. Raises ModelNotLoaded."""
        if self._instance is None:
            raise ModelNotLoaded
        return self._instance

    async def acquired(self) -> Instance:
        """The instance for a request that starts now, loaded again if it was released.

        Raises ModelNotLoaded or ReloadFailed. A request that is cancelled does not end the reload for the others.
        """
        if self._instance is not None:
            return self._instance
        self.check_loaded()
        if self._reload_task is None:
            self._reload_task = asyncio.create_task(self._reload())
            self._reload_task.add_done_callback(self._reload_ended)
        return await asyncio.shield(self._reload_task)

    async def load(self, options: LoadOptions) -> None:
        """Make `options` resident. The same options again: nothing to do. Of the same recogniser: it stays, and
        requests are served meanwhile. Others: release the old model, then load.

        What a moment's look can refuse is refused before the release. If the load fails after that, the old model is
        loaded again, so that a bad load costs time and nothing else. Raises LoadRefused.
        """
        free_count = self._free_count
        async with self._replace_lock:
            if self._instance is not None and self._instance.options == options:
                return
            async with self._load_lock:
                self.usage.restart()
                kind = await self._thread.run(self._loader.inspect, options)
                self._refuse_if_freed_since(free_count)
                if self._instance is not None and self._instance.options.has_recognizer_of(options):
                    self._instance = self._instance.with_options(options)  # nothing here keeps an aligner that goes
                    await self._exchanged()
                else:
                    await self._replace(options, kind, free_count)

    async def free(self) -> None:
        """Drop the model. Waits for nothing: a load that runs is refused at its end.

        Requests in flight keep the model in memory to their end.
        """
        self._free_count += 1
        self.usage.restart()
        self._set_instance(None)
        self._thread.reclaim_soon()

    async def unload(self, idle_s: float) -> None:
        """Release all weights if nobody has used them for `idle_s` seconds; the model stays resident."""
        async with self._load_lock:
            if self._instance is None or self.usage.idle_s < idle_s:
                return
            self._unloaded, self._instance = UnloadedModel(self._instance, self._clock), None
            self.releases["model"] += 1
            _log.info("idle for %g s: the weights are released; the next request loads them again", idle_s)
            await self._thread.reclaim()

    async def release_aligner(self, idle_s: float) -> None:
        """Release the aligner if nobody has used it for `idle_s` seconds; the lean instance stays."""
        async with self._load_lock:
            instance = self._instance
            if not isinstance(instance, Equipped) or self.usage.aligner_idle_s < idle_s:
                return
            self._instance = Lean(instance.options, instance.recognizer)
            del instance
            self.releases["aligner"] += 1
            _log.info("the aligner was idle for %g s: it is released; the next request for times loads it", idle_s)
            await self._thread.reclaim()

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
            raise AlignerUnavailable("no aligner is configured", "no_aligner")
        if self._equip_task is None or not self._equip_task[0].has_models_of(instance):
            task = asyncio.create_task(self._equip(instance))
            task.add_done_callback(self._equip_ended)
            self._equip_task = (instance, task)
        return await asyncio.shield(self._equip_task[1])

    async def _exchanged(self) -> None:
        """The recogniser has other options now. A new aligner is loaded as any is: by the first request for times."""
        self._retry_at = 0.0
        _log.info("the recogniser stays, its options were exchanged: %s", self._names())
        await self._thread.reclaim()

    def _names(self) -> str:
        options = self.options
        if options is None:
            return "no model"
        aligner = f"with the forced aligner '{named(options.forced_aligner)}'" if options.forced_aligner else "alone"
        return f"the model '{named(options.model)}' {aligner}"

    async def _replace(self, options: LoadOptions, kind: Kind, free_count: int) -> None:
        old = self._instance or self._unloaded
        previous = (old.options, old.kind) if old else None
        del old
        self._set_instance(None)
        await self._thread.reclaim()
        refusal = await self._refusal_in(self._install(options, kind, free_count))
        if refusal is None:
            return
        if isinstance(refusal, DeviceLost):  # nothing can be loaded there again
            raise refusal
        await self._thread.reclaim()
        if previous is not None and free_count == self._free_count:
            await self._restore(*previous, free_count)
        raise refusal

    async def _reload(self) -> Instance:
        free_count = self._free_count
        async with self._load_lock:
            unloaded = self._unloaded
            if self._instance is not None:  # a LoadModel was faster
                return self._instance
            if unloaded is None:
                raise ModelNotLoaded
            unloaded.check_retry()
            if (instance := unloaded.still_there()) is not None:
                self._set_instance(instance)
                return instance
            refusal = await self._refusal_in(self._install(unloaded.options, unloaded.kind, free_count))
            if free_count != self._free_count:
                raise ModelNotLoaded
            if refusal is not None:
                _log.error("the released model cannot be loaded again: %s", refusal)
                await self._thread.reclaim()
                raise unloaded.failed(refusal)
            self.reloads += 1
            return self.current()

    def _reload_ended(self, task: asyncio.Task[Instance]) -> None:
        self._reload_task = None
        if not task.cancelled():
            task.exception()  # as in _equip_ended

    def _set_instance(self, instance: Instance | None) -> None:
        self._instance, self._unloaded = instance, None
        self._on_state_change(instance is not None)

    async def _install(self, options: LoadOptions, kind: Kind, free_count: int) -> None:
        self._retry_at = 0.0
        if kind == "aligner":
            aligner = await self._thread.run(self._loader.load_aligner, options)
            self._refuse_if_freed_since(free_count)
            self._loaded_models.add("aligner", aligner)
            self._set_instance(AlignerAlone(options, aligner))
        else:
            recognizer = await self._thread.run(self._loader.load_recognizer, options)
            self._refuse_if_freed_since(free_count)
            self._loaded_models.add("recognizer", recognizer)
            self._set_instance(Lean(options, recognizer))
        _log.info("loaded: %s", self._names())

    def _refuse_if_freed_since(self, free_count: int) -> None:
        if free_count != self._free_count:
            raise LoadRefused("the model was freed while it was being loaded")

    async def _restore(self, old: LoadOptions, kind: Kind, free_count: int) -> None:
        _log.warning("the load failed; loading the model that was there before")
        refusal = await self._refusal_in(self._install(old, kind, free_count))
        if refusal is not None:
            _log.error("the model that was there before cannot be loaded either: %s", refusal)
            await self._thread.reclaim()

    @staticmethod
    async def _refusal_in(load: Coroutine[Any, Any, None]) -> AsrError | None:
        """The load's failure, without its traceback: that would keep what was loaded while the next model loads."""
        try:
            await load
        except AsrError as refusal:
            return untraced(refusal)
        return None

    async def _equip(self, lean: Lean) -> Equipped:
        async with self._load_lock:
            instance = self._instance
            is_resident = isinstance(instance, Lean) and instance.has_models_of(lean)
            if is_resident and isinstance(instance, Equipped):
                return instance
            if is_resident and self._clock() < self._retry_at:
                raise AlignerUnavailable(self._aligner_failure)
            try:
                aligner = await self._thread.run(self._loader.load_aligner, lean.options)
            except AsrError as error:
                cause = _TOO_LARGE if isinstance(error, TooLittleMemory) else f"the aligner cannot be loaded: {error}"
                _log.warning("the aligner cannot be loaded: %s; next try in %g s", error, lean.options.aligner_retry_s)
                if self._instance is instance and is_resident:
                    self._retry_at, self._aligner_failure = self._clock() + lean.options.aligner_retry_s, cause
                untraced(error)  # its traceback would keep the half-loaded aligner
                if not isinstance(error, DeviceLost):
                    await self._thread.reclaim()
                raise AlignerUnavailable(cause) from error
            self._loaded_models.add("aligner", aligner)
            if not isinstance(self._instance, Lean) or not self._instance.has_models_of(lean):
                return Equipped(lean.options, lean.recognizer, aligner)  # freed or replaced: for these requests alone
            self._instance = equipped = Equipped(self._instance.options, lean.recognizer, aligner)
            return equipped

    def _equip_ended(self, task: asyncio.Task[Equipped]) -> None:
        if self._equip_task is not None and self._equip_task[1] is task:
            self._equip_task = None
        if not task.cancelled():
            task.exception()  # marks it as retrieved: asyncio complains if every request was cancelled meanwhile
