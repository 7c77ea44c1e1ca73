"""The thread in which models are loaded, and in which their memory is given back.

What was loaded is counted for as long as it is in memory (loaded_models.py).
Rules: one thing is done at a time, in order. What fails in here is an error of ours with its cause. Giving memory back
is a favour to the next load: where it fails, that is logged, and no load, no Free and no request is decided by it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import ParamSpec, TypeVar

from backend.errors import AsrError, DeviceLost
from backend.options.load_options import LoadOptions
from backend.serving.faults import refusal_of
from backend.serving.loading.loaded_models import LoadedModels
from backend.serving.model_instance import AlignerAlone, Instance, Lean
from backend.serving.protocols import Aligner, Kind, Loader

_log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


class LoaderThread:
    """Its methods are for the event loop's thread."""

    def __init__(self, loader: Loader, on_device_lost: Callable[[], None]) -> None:
        """`on_device_lost` is called when something that ran here lost the device."""
        self._loader = loader
        self._on_device_lost = on_device_lost
        self._thread = ThreadPoolExecutor(1, "loader")  # not the event loop's pool, which hours of audio keep busy
        self._submit(lambda: None)  # the thread exists from now on: later the process may have none left
        self._loaded_models = LoadedModels(on_collected=self.reclaim_soon)

    @property
    def weight_bytes(self) -> dict[str, int]:
        """Of all models in memory, also where only a request in flight holds them. From any thread."""
        return self._loaded_models.weight_bytes

    async def inspect(self, options: LoadOptions) -> Kind:
        """What a load of `options` would bring, refused where a moment's look shows that it cannot. Raises AsrError."""
        return await self._run(self._loader.inspect, options)

    async def load(self, options: LoadOptions, kind: Kind) -> Instance:
        """Raises AsrError."""
        if kind == "aligner":
            return AlignerAlone(options, await self.load_aligner(options))
        recognizer = await self._run(self._loader.load_recognizer, options)
        self._loaded_models.add("recognizer", recognizer)
        return Lean(options, recognizer)

    async def load_aligner(self, options: LoadOptions) -> Aligner:
        """Raises AsrError."""
        aligner = await self._run(self._loader.load_aligner, options)
        self._loaded_models.add("aligner", aligner)
        return aligner

    async def reclaim(self, *, idle: bool = False) -> None:
        """Give memory of dropped models back, and wait for it. Raises nothing. `idle`: see Loader.reclaim."""
        try:
            await self._run(self._loader.reclaim, idle=idle)
        except AsrError as error:
            _log.warning("the memory of a model that was dropped could not be given back: %s", error)

    def reclaim_soon(self) -> None:
        """Give memory of dropped models back, and wait for nothing."""
        self._submit(self._loader.reclaim)

    async def _run(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """The result of `work`. Foreign exceptions are logged and raised as refusal_of says."""
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

    def _submit(self, work: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # no thread can be started now: the work waits for the next that can
            self._thread.submit(_logged, work)


def _logged(work: Callable[[], object]) -> None:
    try:
        work()
    except Exception:  # noqa: BLE001 - foreign code, as above; nobody waits for the result
        _log.exception("the loader's thread")


def _in_short_lived_thread(work: Callable[[], T]) -> T:
    """Run `work` in a thread that ends with it.

    A thread that ever ran an OpenMP loop keeps its workers until it ends. With more workers than processors libgomp
    puts a waiting thread to sleep at once, and a decode step takes half as long again.
    """
    with ThreadPoolExecutor(1, "loading") as thread:
        return thread.submit(work).result()
