"""Which models are in memory, whoever holds them: requests may keep one long after it was released."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from contextlib import suppress
from weakref import WeakValueDictionary

from backend.serving.protocols import Aligner, Recognizer


class LoadedModels:
    """`gone` is called on the event loop whenever a model is really gone."""

    def __init__(self, gone: Callable[[], object]) -> None:
        self._gone = gone
        self._models: dict[str, WeakValueDictionary[int, Recognizer | Aligner]] = {  # by id
            "recognizer": WeakValueDictionary(),
            "aligner": WeakValueDictionary(),
        }

    @property
    def weight_bytes(self) -> dict[str, int]:
        """Of all recognisers and all aligners. From any thread."""
        return {
            kind: sum(model.weight_bytes for ref in models.valuerefs() if (model := ref()) is not None)
            for kind, models in self._models.items()
        }

    def watch(self, kind: str, model: Recognizer | Aligner) -> None:
        """`kind`: recognizer or aligner.

        The garbage collector says when it is gone, in any thread and in the middle of anything, also of an executor's
        `submit` that holds its lock: the event loop is told, which takes none.
        """
        self._models[kind][id(model)] = model
        weakref.finalize(model, _tell, asyncio.get_running_loop(), self._gone).atexit = False


def _tell(loop: asyncio.AbstractEventLoop, gone: Callable[[], object]) -> None:
    with suppress(RuntimeError):  # the loop has ended, and with it whatever wants the memory back
        loop.call_soon_threadsafe(gone)
