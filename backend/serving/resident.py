"""The one model of this process: nothing, the lean instance, the same equipped with an aligner, or an aligner alone.

Rules: there is one copy of the recogniser's weights, ever (law 1). The first request for times loads the aligner and
swaps in an equipped instance around the same recogniser; the lean instance is dropped. One load runs at a time, however
many requests ask for it, and a request that is cancelled does not end it for the others. A request keeps the instance
that it started with to its end, so a swap, a reload or a Free disturbs no request in flight. A LoadModel that names the
same recogniser keeps it: what differs, the aligner say, is exchanged around it. A model whose weights were released for
idleness (idle/) is resident still: the next request loads it again, and the others wait for the same load.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Literal, overload

from backend.errors import ModelNotLoaded
from backend.options.load_options import LoadOptions
from backend.serving.idle.unloaded import UnloadedModel
from backend.serving.idle.usage import Usage
from backend.serving.loading.aligner_loading import AlignerLoading, AlignerState
from backend.serving.loading.loader_thread import LoaderThread
from backend.serving.loading.model_loading import ModelLoading
from backend.serving.loading.resident_model import ResidentModel
from backend.serving.model_instance import AlignerAlone, Equipped, Instance, Lean, WithAligner
from backend.serving.protocols import Loader

_log = logging.getLogger(__name__)

ModelState = Literal["none", "loading", "loaded", "unloaded"]  # unloaded: released for idleness


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
        self._clock = clock
        self._thread = LoaderThread(loader, on_device_lost)
        self.usage = Usage(clock)
        self.releases: Counter[str] = Counter(aligner=0, model=0)  # of idle models, by what was released
        self._model = ResidentModel(on_state_change)
        self._aligner = AlignerLoading(self._model, self._thread, clock)
        self._loading = ModelLoading(self._model, self._thread, self._aligner, self.usage)

    @property
    def loading(self) -> bool:
        return self._model.lock.locked()

    @property
    def identity(self) -> str:
        """The `Model` of the last successful LoadModel; "" when nothing is loaded."""
        options = self.options
        return options.model if options else ""

    @property
    def options(self) -> LoadOptions | None:
        """Those of the resident model, its weights may be released; None without a model. From any thread."""
        return self._model.options

    @property
    def aligns(self) -> bool:
        """Whether the resident model, its weights may be released, finds the times of known texts."""
        model = self._model.either
        return model is not None and model.aligns

    @property
    def weight_bytes(self) -> dict[str, int]:
        """Of all models in memory, also where only a request in flight holds them. From any thread."""
        return self._thread.weight_bytes

    @property
    def reloads(self) -> int:
        """How often a model was loaded again that had been released for idleness."""
        return self._loading.reloads

    @property
    def aligner_state(self) -> AlignerState:
        return self._aligner.state

    @property
    def state(self) -> ModelState:
        """From any thread."""
        if self._model.instance is not None:
            return "loaded"
        return "loading" if self.loading else "unloaded" if self._model.unloaded is not None else "none"

    def check_loaded(self) -> None:
        """Raises ModelNotLoaded. A model that was released for idleness is loaded: a request brings it back."""
        if self.options is None:
            raise ModelNotLoaded

    def current(self) -> Instance:
        """The instance in memory. Raises ModelNotLoaded."""
        return self._model.current()

    async def acquired(self) -> Instance:
        """The instance for a request that starts now, loaded again if it was released.

        Raises ModelNotLoaded or ReloadFailed. A request that is cancelled does not end the reload for the others.
        """
        if self._model.instance is not None:
            return self._model.instance
        self.check_loaded()
        return await self._loading.reload()

    async def load(self, options: LoadOptions) -> None:
        """Make `options` resident. The same options again: nothing to do. Of the same recogniser: it stays, and
        requests are served meanwhile. Others: release the old model, then load.

        What a moment's look can refuse is refused before the release. If the load fails after that, the old model is
        loaded again, so that a bad load costs time and nothing else. Raises LoadRefused.
        """
        await self._loading.load(options)

    async def free(self) -> None:
        """Drop the model. Waits for nothing: a load that runs is refused at its end.

        Requests in flight keep the model in memory to their end.
        """
        self._model.free_count += 1
        self.usage.restart()
        self._model.install(None)
        self._thread.reclaim_soon()

    async def unload(self, idle_s: float) -> None:
        """Release all weights if nobody has used them for `idle_s` seconds; the model stays resident."""
        model = self._model
        async with model.lock:
            if model.instance is None or self.usage.idle_s < idle_s:
                return
            model.unloaded, model.instance = UnloadedModel(model.instance, self._clock), None
            self.releases["model"] += 1
            _log.info("idle for %g s: the weights are released; the next request loads them again", idle_s)
            await self._thread.reclaim(idle=True)

    async def release_aligner(self, idle_s: float) -> None:
        """Release the aligner if nobody has used it for `idle_s` seconds; the lean instance stays."""
        async with self._model.lock:
            instance = self._model.instance
            if not isinstance(instance, Equipped) or self.usage.aligner_idle_s < idle_s:
                return
            self._model.instance = Lean(instance.options, instance.recognizer)
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
        return instance if isinstance(instance, WithAligner) else await self._aligner.equipped(instance)
