"""How long the cause of a failed load is what requests get."""

from __future__ import annotations

from backend.serving.recent_failure import RecentFailure


def test_a_cause_is_there_until_the_next_try_or_until_it_is_forgotten() -> None:
    now = 100.0
    failure = RecentFailure(lambda: now)
    assert failure.cause == ""
    failure.remember("no disk", 10.0)
    now = 109.9
    assert failure.cause == "no disk"
    now = 110.0
    assert failure.cause == ""
    failure.remember("no net", 10.0)
    failure.forget()
    assert failure.cause == ""
