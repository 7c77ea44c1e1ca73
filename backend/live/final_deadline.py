"""When a stream's final result leaves at the latest, whatever it waits for: sound, a decode, words, the model's load.

The gateway's microphone waits from the end of the sound to the final result, and throws all of it away after 10 s.
"""

from __future__ import annotations

import asyncio
from typing import Any

from backend.thresholds import LIVE_FINAL_S


class FinalDeadline:
    """For the event loop's thread."""

    def __init__(self) -> None:
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def has_begun(self) -> bool:
        """Whether the sound has ended."""
        return self._timer is not None

    @property
    def is_over(self) -> bool:
        """Whether the result has to leave now."""
        return self._over.done()

    def begin(self) -> None:
        """The sound has ended: the time runs. Calls after the first change nothing."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LIVE_FINAL_S, self._over.set_result, None)

    def cancel(self) -> None:
        """Nobody waits for the result."""
        if self._timer is not None:
            self._timer.cancel()

    async def meets(self, work: asyncio.Future[Any]) -> bool:
        """Wait for `work`, but not beyond the deadline. Whether it is done; if not, it runs on."""
        await asyncio.wait({work, self._over}, return_when=asyncio.FIRST_COMPLETED)
        return work.done()
