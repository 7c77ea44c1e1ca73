"""Which models are in memory, whoever holds them: a request may hold one long after it was released.

Rules: models are referred to weakly, so nothing here keeps one in memory.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Literal
from weakref import WeakValueDictionary

from backend.serving.protocols import Aligner, Recognizer


class LoadedModels:
    """`on_collected` is called on the event loop each time a model has left memory."""

    def __init__(self, on_collected: Callable[[], object]) -> None:
        self._on_collected = on_collected
        self._models: dict[str, WeakValueDictionary[int, Recognizer | Aligner]] = {  # by id
            "recognizer": WeakValueDictionary(),
            "aligner": WeakValueDictionary(),
        }

    @property
    def weight_bytes(self) -> dict[str, int]:
        """Bytes of the weights of all recognisers and of all aligners in memory. From any thread."""
        return {
            kind: sum(model.weight_bytes for ref in models.valuerefs() if (model := ref()) is not None)
            for kind, models in self._models.items()
        }

    def add(self, kind: Literal["recognizer", "aligner"], model: Recognizer | Aligner) -> None:
        """Count the model for as long as it is in memory. Called on the event loop.

        The garbage collector runs the finalizer in any thread and in the middle of anything, also of an executor's
        `submit` that holds the executor's lock. So the finalizer takes no lock: it only notifies the event loop.
        """
        self._models[kind][id(model)] = model
        weakref.finalize(model, _notify, asyncio.get_running_loop(), self._on_collected).atexit = False


def _notify(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    with suppress(RuntimeError):  # the loop is closed, and nothing needs the memory back any more
        loop.call_soon_threadsafe(callback)
