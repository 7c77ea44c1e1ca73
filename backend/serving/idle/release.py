"""Gives the memory of an idle model back: the aligner, all weights, or the process, after the times of the options.

- A use that begins meanwhile wins: resident.py looks again before it drops anything.
- The process ends only where somebody starts it again: where it watches its parent, which then is a gateway.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from backend.options.load_options import LoadOptions
from backend.serving.resident import Resident

_log = logging.getLogger(__name__)

_INTERVAL_S = 1.0
# A process whose load failed or whose model was freed keeps its libraries' memory, 0.7 GB, for nothing. A gateway loads
# within seconds of the start, and a person who reads the refusal needs minutes. Chosen, not measured.
NO_MODEL_EXIT_S = 1800.0


class IdleRelease:
    """Looks once a second. `leave`: ends the process, with the reason; None: nobody would start it again."""

    def __init__(self, resident: Resident, leave: Callable[[str], None] | None) -> None:
        self._resident = resident
        self._leave = leave
        self._warned_of: LoadOptions | None = None

    async def run(self) -> None:
        while True:
            await asyncio.sleep(_INTERVAL_S)
            await self.look()

    async def look(self) -> None:
        """Release what has been idle for long enough."""
        resident, options = self._resident, self._resident.options
        idle_s = resident.usage.idle_s
        if options is None:
            if self._leave is not None and idle_s >= NO_MODEL_EXIT_S and not resident.loading:
                self._leave(f"no model was loaded for {NO_MODEL_EXIT_S / 60:g} minutes")
            return
        if options.idle_exit_s:
            self._exit_if_idle(options, idle_s)
        if options.idle_unload_s and idle_s >= options.idle_unload_s:
            await resident.unload(options.idle_unload_s)
        elif options.aligner_idle_s and resident.usage.aligner_idle_s >= options.aligner_idle_s:
            await resident.release_aligner(options.aligner_idle_s)

    def _exit_if_idle(self, options: LoadOptions, idle_s: float) -> None:
        if self._leave is None:
            if self._warned_of is not options:
                self._warned_of = options
                _log.warning("idle_exit_seconds has no effect: nobody starts this process again, it watches no parent")
        elif idle_s >= options.idle_exit_s and not self._resident.loading:
            self._leave(f"idle for {options.idle_exit_s:g} s (idle_exit_seconds)")
