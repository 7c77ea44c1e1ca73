"""The watchdog of the model thread: says when the engine cannot answer any more."""

from __future__ import annotations

import asyncio

from backend.errors import StallSecondsRefused
from backend.process.observed_time import ObservedTime
from backend.serving.scheduler import Scheduler

_DEFAULT_STALL_S, _MIN_STALL_S = 300.0, 5.0  # a prefill step of a large model on a small CPU may take minutes
_INTERVAL_S = 0.5


def stall_limit_s(setting: str) -> float:
    """Seconds after which a step counts as stalled: at least 5, by default 300. Raises StallSecondsRefused."""
    try:
        seconds = float(setting.strip() or _DEFAULT_STALL_S)
    except ValueError:
        seconds = 0.0
    if not seconds >= _MIN_STALL_S:  # also true for NaN
        raise StallSecondsRefused(_MIN_STALL_S)
    return seconds


async def engine_failure(scheduler: Scheduler, stall_s: float) -> str:
    """Returns the cause once the engine cannot answer any more: it is dead, or at one step for `stall_s` seconds.

    Time in which this watchdog did not run does not count: the process was frozen, and the model thread with it.
    """
    observed, before_s, hung_s = ObservedTime(), 0.0, 0.0
    while not scheduler.dead:
        now_s = observed.elapsed_s()
        before_s, hung_s = now_s, min(scheduler.stalled_s, hung_s + now_s - before_s)
        if hung_s > stall_s:
            return f"it has been at one step for {stall_s:g} s (QWEN_ASR_STALL_SECONDS)"
        await asyncio.sleep(_INTERVAL_S)
    return scheduler.dead
