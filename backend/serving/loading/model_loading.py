"""Makes a model resident: by LoadModel, in place of another one, or again after a release for idleness.

Rules: one load runs at a time. The old model leaves memory before the new one is read. If the new one cannot be loaded,
the old one is loaded again. A load that Free overtook is refused and brings nothing back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from backend.errors import AsrError, DeviceLost, ModelNotLoaded
from backend.options.load_options import LoadOptions
from backend.serving.faults import untraced
from backend.serving.idle.usage import Usage
from backend.serving.loading.aligner_loading import AlignerLoading
from backend.serving.loading.loader_thread import LoaderThread
from backend.serving.loading.resident_model import ResidentModel
from backend.serving.loading.shared_load import SharedLoad
from backend.serving.model_instance import Instance
from backend.serving.protocols import Kind

_log = logging.getLogger(__name__)


class ModelLoading:
    """For the event loop's thread."""

    def __init__(self, model: ResidentModel, thread: LoaderThread, aligner: AlignerLoading, usage: Usage) -> None:
        self._model = model
        self._thread = thread
        self._aligner = aligner
        self._usage = usage
        # LoadModels take turns by this lock, and every load holds the model's, so that a LoadModel of the same options,
        # which loads nothing, does not wait for an aligner that is being loaded.
        self._replace_lock = asyncio.Lock()
        self._shared_reload = SharedLoad[Instance]()
        self.reloads = 0  # of models that had been released

    async def load(self, options: LoadOptions) -> None:
        """See Resident."""
        model, free_count = self._model, self._model.free_count
        async with self._replace_lock:
            if model.instance is not None and model.instance.options == options:
                return
            async with model.lock:
                self._usage.restart()
                kind = await self._thread.inspect(options)
                model.refuse_if_freed_since(free_count)
                if model.instance is not None and model.instance.options.has_recognizer_of(options):
                    model.instance = model.instance.with_options(options)  # nothing here keeps an aligner that goes
                    await self._exchanged()
                else:
                    await self._replace(options, kind, free_count)

    async def reload(self) -> Instance:
        """The released model, in memory again. Raises ModelNotLoaded or ReloadFailed."""
        return await self._shared_reload.result(self._reload)

    async def _exchanged(self) -> None:
        """The recogniser has other options now. A new aligner is loaded as any is: by the first request for times."""
        self._aligner.forget_failure()
        _log.info("the recogniser stays, its options were exchanged: %s", self._model.names)
        await self._thread.reclaim()

    async def _replace(self, options: LoadOptions, kind: Kind, free_count: int) -> None:
        old = self._model.either
        previous = (old.options, old.kind) if old else None
        del old
        self._model.install(None)
        await self._thread.reclaim()
        refusal = await _refusal_in(self._install(options, kind, free_count))
        if refusal is None:
            return
        if isinstance(refusal, DeviceLost):  # nothing can be loaded there again
            raise refusal
        await self._thread.reclaim()
        if previous is not None and free_count == self._model.free_count:
            await self._restore(*previous, free_count)
        raise refusal

    async def _restore(self, old: LoadOptions, kind: Kind, free_count: int) -> None:
        _log.warning("the load failed; loading the model that was there before")
        refusal = await _refusal_in(self._install(old, kind, free_count))
        if refusal is not None:
            _log.error("the model that was there before cannot be loaded either: %s", refusal)
            await self._thread.reclaim()

    async def _reload(self) -> Instance:
        model, free_count = self._model, self._model.free_count
        async with model.lock:
            unloaded = model.unloaded
            if model.instance is not None:  # a LoadModel was faster
                return model.instance
            if unloaded is None:
                raise ModelNotLoaded
            unloaded.check_retry()
            if (instance := unloaded.still_there()) is not None:
                model.install(instance)
                return instance
            refusal = await _refusal_in(self._install(unloaded.options, unloaded.kind, free_count))
            if free_count != model.free_count:
                raise ModelNotLoaded
            if refusal is not None:
                _log.error("the released model cannot be loaded again: %s", refusal)
                await self._thread.reclaim()
                raise unloaded.failed(refusal)
            self.reloads += 1
            return model.current()

    async def _install(self, options: LoadOptions, kind: Kind, free_count: int) -> None:
        self._aligner.forget_failure()
        instance = await self._thread.load(options, kind)
        self._model.refuse_if_freed_since(free_count)
        self._model.install(instance)
        _log.info("loaded: %s", self._model.names)


async def _refusal_in(load: Coroutine[Any, Any, None]) -> AsrError | None:
    """The load's failure, without its traceback: that would keep what was loaded while the next model loads."""
    try:
        await load
    except AsrError as refusal:
        return untraced(refusal)
    return None
