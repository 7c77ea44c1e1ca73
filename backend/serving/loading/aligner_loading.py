"""The aligner of the resident recogniser: the first request for times loads it.

Rules: the recogniser stays, and serves meanwhile (law 1). An aligner that cannot be loaded is not tried again at every
request. One whose recogniser was freed or replaced meanwhile is for the requests that wait for it alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Literal

from backend.errors import AlignerUnavailable, AsrError, DeviceLost, TooLittleMemory
from backend.serving.faults import untraced
from backend.serving.loading.loader_thread import LoaderThread
from backend.serving.loading.resident_model import ResidentModel
from backend.serving.loading.shared_load import SharedLoad
from backend.serving.model_instance import Equipped, Lean, WithAligner
from backend.serving.recent_failure import RecentFailure

_log = logging.getLogger(__name__)

AlignerState = Literal["none", "waiting", "loaded", "failed"]  # waiting: no request has asked for times yet

_TOO_LARGE = "the device has too little memory for the aligner"


class AlignerLoading:
    """For the event loop's thread."""

    def __init__(self, model: ResidentModel, thread: LoaderThread, clock: Callable[[], float]) -> None:
        """`clock`: seconds."""
        self._model = model
        self._thread = thread
        self._load = SharedLoad[Equipped]()
        self._failure = RecentFailure(clock)

    @property
    def state(self) -> AlignerState:
        options = self._model.options
        if isinstance(self._model.instance, WithAligner):
            return "loaded"
        if options is None or not options.forced_aligner:
            return "none"
        return "failed" if self._failure.cause else "waiting"

    def forget_failure(self) -> None:
        """Another model, or other options: the next request for times tries again."""
        self._failure.forget()

    async def equipped(self, lean: Lean) -> Equipped:
        """`lean` with its aligner, which is swapped in as the resident instance. Raises AlignerUnavailable."""
        if not lean.options.forced_aligner:
            raise AlignerUnavailable("no aligner is configured", "no_aligner")
        of = id(lean.recognizer), lean.options.aligner  # the load, and what it brings, keep the recogniser and its id
        return await self._load.result(partial(self._equip, lean), of)

    async def _equip(self, lean: Lean) -> Equipped:
        async with self._model.lock:
            resident = self._model.with_models_of(lean)
            if isinstance(resident, Equipped):
                return resident
            if resident is not None and self._failure.cause:
                raise AlignerUnavailable(self._failure.cause)
            try:
                aligner = await self._thread.load_aligner(lean.options)
            except AsrError as error:
                unavailable = self._unavailable(lean, error)
                untraced(error)  # its traceback would keep the half-loaded aligner
                if not isinstance(error, DeviceLost):
                    await self._thread.reclaim()
                raise unavailable from error
            resident = self._model.with_models_of(lean)
            if resident is None:  # freed or replaced: for these requests alone
                return Equipped(lean.options, lean.recognizer, aligner)
            self._model.instance = equipped = Equipped(resident.options, lean.recognizer, aligner)
            return equipped

    def _unavailable(self, lean: Lean, error: AsrError) -> AlignerUnavailable:
        """Log the failure of `lean`'s load, remember it if `lean` is resident, and word it for the requests."""
        cause = _TOO_LARGE if isinstance(error, TooLittleMemory) else f"the aligner cannot be loaded: {error}"
        _log.warning("the aligner cannot be loaded: %s; next try in %g s", error, lean.options.aligner_retry_s)
        if self._model.with_models_of(lean) is not None:
            self._failure.remember(cause, lean.options.aligner_retry_s)
        return AlignerUnavailable(cause)
