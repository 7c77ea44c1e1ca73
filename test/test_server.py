"""The watchdog of the model thread."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from backend import server
from backend.process.observed_time import ObservedTime


class Stepping:
    """A scheduler at one step."""

    dead = ""
    stalled_s = 0.0


@pytest.fixture
def watched(monkeypatch) -> Callable[..., Any]:
    """`watched(moments, stall_s)`: what the watchdog says of one endless step when it looks at these moments only."""

    async def watch(moments: list[float], stall_s: float) -> str:
        scheduler = Stepping()
        left = iter(moments)

        def clock() -> float:
            now = next(left, math.nan)
            if math.isnan(now):
                scheduler.dead, now = "the test has ended", moments[-1]
            scheduler.stalled_s = now - moments[0]
            return now

        monkeypatch.setattr(server, "ObservedTime", lambda: ObservedTime(clock))
        monkeypatch.setattr(server, "_WATCHDOG_INTERVAL_S", 0.0)
        return await server._engine_failure(scheduler, stall_s)  # type: ignore[arg-type]

    return watch


async def test_a_process_that_was_frozen_in_a_step_has_not_hung(watched) -> None:
    assert await watched([0.0, 0.5, 600.0, 600.5, 1800.0], 5.0) == "the test has ended"


async def test_a_hang_is_found_also_by_a_watchdog_that_comes_late(watched) -> None:
    said = await watched([0.0, 0.5, 600.0, *(600.0 + 2.0 * look for look in range(1, 9))], 5.0)
    assert said.startswith("it has been at one step for 5 s")
