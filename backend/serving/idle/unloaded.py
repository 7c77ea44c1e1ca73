"""A model whose weights were released because it was idle: what brings it back."""

from __future__ import annotations

import weakref
from collections.abc import Callable

from backend.errors import AsrError, ReloadFailed
from backend.options.load_options import LoadOptions
from backend.serving.model_instance import AlignerAlone, Instance, Lean
from backend.serving.protocols import Aligner, Recognizer
from backend.serving.recent_failure import RecentFailure

_RETRY_S = 10.0  # after a reload that failed: requests until then get its cause, and load nothing


class UnloadedModel:
    """The options of a released model, and how its reload fared. For the event loop's thread."""

    def __init__(self, instance: Instance, clock: Callable[[], float]) -> None:
        self.options: LoadOptions = instance.options
        self.kind, self.aligns = instance.kind, instance.aligns
        # Somebody may still hold the recogniser. Then it is used again, because two were never to be in memory.
        self._recognizer: weakref.ref[Recognizer] | None = None
        self._aligner: weakref.ref[Aligner] | None = None
        if isinstance(instance, AlignerAlone):
            self._aligner = weakref.ref(instance.aligner)
        else:
            self._recognizer = weakref.ref(instance.recognizer)
        self._failure = RecentFailure(clock)

    def still_there(self) -> Instance | None:
        """The model, if it has not left memory yet."""
        if self._aligner is not None and (aligner := self._aligner()) is not None:
            return AlignerAlone(self.options, aligner)
        if self._recognizer is not None and (recognizer := self._recognizer()) is not None:
            return Lean(self.options, recognizer)
        return None

    def check_retry(self) -> None:
        """Raises ReloadFailed if the last reload failed a moment ago."""
        if self._failure.cause:
            raise ReloadFailed(self._failure.cause)

    def failed(self, refusal: AsrError) -> ReloadFailed:
        """The error for the requests that waited for a reload that was refused."""
        self._failure.remember(str(refusal), _RETRY_S)
        return ReloadFailed(str(refusal))
