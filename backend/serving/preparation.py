"""Prepares the items of waiting jobs in a thread of its own: prompts and features, which the host computes.

On a GPU the device waits while the model thread adds items to a session, so that thread does nothing that another one
can do. Rules: only jobs whose turn is near are prepared, because what is prepared takes memory. A job whose turn comes
earlier is added as it is, and the session prepares it. So a failure here decides nothing.
"""

from __future__ import annotations

import logging
import threading

from backend.serving.fair_queue import FairQueue

_log = logging.getLogger(__name__)

_BATCHES_AHEAD = 2  # of the jobs whose turn is next


class Preparation:
    """`lock` guards the queue. `notify` and `stop` are for threads that hold it."""

    def __init__(self, waiting: FairQueue, lock: threading.RLock) -> None:
        self._waiting = waiting
        self._changed = threading.Condition(lock)
        self._stopping = False
        threading.Thread(target=self._run, name="prepare", daemon=True).start()

    def notify(self) -> None:
        """The queue has changed."""
        self._changed.notify()

    def stop(self) -> None:
        """End the thread after its current job."""
        self._stopping = True
        self._changed.notify()

    def _run(self) -> None:
        while not self._stopping:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._waiting.next_to_prepare(_BATCHES_AHEAD))
            self._prepare_next()

    def _prepare_next(self) -> None:
        """Not inlined in `_run`: while the thread waits, no local variable may hold a model or audio."""
        with self._changed:
            job = self._waiting.next_to_prepare(_BATCHES_AHEAD)
            if job is None or job.kind.prepare is None:
                return
            job.offered = True
        try:
            prepared = job.kind.prepare(job.item)
        except Exception as error:  # noqa: BLE001 - foreign code; the model thread meets the same cause and answers it
            _log.info("an item cannot be prepared (%s)", type(error).__name__)
            return
        with self._changed:
            if self._waiting.holds(job):
                job.item = prepared
