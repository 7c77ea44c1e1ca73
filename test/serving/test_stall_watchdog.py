"""The watchdog of the model thread."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from backend.errors import StallSecondsRefused
from backend.process.observed_time import ObservedTime
from backend.serving import stall_watchdog


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

        monkeypatch.setattr(stall_watchdog, "ObservedTime", lambda: ObservedTime(clock))
        monkeypatch.setattr(stall_watchdog, "_INTERVAL_S", 0.0)
        return await stall_watchdog.engine_failure(scheduler, stall_s)  # type: ignore[arg-type]

    return watch


async def test_a_process_that_was_frozen_in_a_step_has_not_hung(watched) -> None:
    assert await watched([0.0, 0.5, 600.0, 600.5, 1800.0], 5.0) == "the test has ended"


async def test_a_hang_is_found_also_by_a_watchdog_that_comes_late(watched) -> None:
    said = await watched([0.0, 0.5, 600.0, *(600.0 + 2.0 * look for look in range(1, 9))], 5.0)
    assert said.startswith("it has been at one step for 5 s")


@pytest.mark.parametrize(("setting", "stall_s"), [("", 300.0), (" 5 ", 5.0), ("1e3", 1000.0), ("inf", math.inf)])
def test_the_setting_is_seconds(setting: str, stall_s: float) -> None:
    assert stall_watchdog.stall_limit_s(setting) == stall_s


@pytest.mark.parametrize("setting", ["4.9", "-1", "nan", "soon"])
def test_a_setting_that_would_end_a_slow_step_is_refused(setting: str) -> None:
    with pytest.raises(StallSecondsRefused):
        stall_watchdog.stall_limit_s(setting)
