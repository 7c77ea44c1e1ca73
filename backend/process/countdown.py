"""An action that happens some seconds after it is asked for, in a thread that exists before.

The process ends by such actions. At its end there may be no thread left to start: limits on processes, of a user or of
a container, count threads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from backend.errors import NoThreads


class Countdown:
    """Calls `action` in a thread of its own, once, after `start`."""

    def __init__(self, action: Callable[..., object]) -> None:
        """Raises NoThreads."""
        self._action = action
        self._after_s = 0.0
        self._arguments: tuple[Any, ...] = ()
        self._started = threading.Event()
        try:
            threading.Thread(target=self._run, name="countdown", daemon=True).start()
        except RuntimeError:
            raise NoThreads from None

    def start(self, after_s: float, *arguments: Any) -> None:
        """Call the action with the arguments in `after_s` seconds. Does not block."""
        self._after_s, self._arguments = after_s, arguments
        self._started.set()

    def _run(self) -> None:
        self._started.wait()
        time.sleep(self._after_s)
        self._action(*self._arguments)
