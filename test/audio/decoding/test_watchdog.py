"""When a child is given up: by its own time and not by the clock, for any file that it can be lost in."""

from __future__ import annotations

import os

from backend.audio.decoding.watchdog import Look, Watchdog, vitals


def lost_after(*, cpu: float, is_waiting: bool = True, sound: float = 0.0, bytes_read: float = 0.0) -> float | None:
    """Seconds until a child is given up that does so much of each in a second; None if it may go on for an hour."""

    def look(tenths: int) -> Look:
        at_s = tenths / 10
        return Look(at_s, cpu * at_s, is_waiting, sound * at_s, int(bytes_read * at_s))

    pace = Watchdog(look(0))
    return next((tenths / 10 for tenths in range(1, 36_000) if pace.is_lost(look(tenths))), None)


def test_what_computes_or_sleeps_without_a_result_is_lost_after_five_seconds() -> None:
    assert 5 <= lost_after(cpu=1.0) <= 5.2
    assert 5 <= lost_after(cpu=0.0, is_waiting=False) <= 5.2


def test_what_gets_no_core_or_waits_for_a_disk_has_half_a_minute() -> None:
    assert 30 <= lost_after(cpu=0.0) <= 30.2
    assert 25 <= lost_after(cpu=0.2) <= 25.2


def test_what_gets_on_may_take_its_time() -> None:
    assert lost_after(cpu=1.0, sound=100) is None
    assert lost_after(cpu=0.01, sound=0.1) is None
    assert lost_after(cpu=0.1, is_waiting=False, sound=1.0) is None


def test_a_long_way_through_a_file_without_sound_is_progress_too() -> None:
    assert lost_after(cpu=0.001, bytes_read=100_000) is None


def test_reading_the_same_again_and_again_is_no_progress() -> None:
    pace = Watchdog(Look(0, 0, True, 0, 0))
    looks = [Look(tenths / 10, tenths / 10, True, 0, tenths % 7 * 1000) for tenths in range(1, 100)]
    assert [pace.is_lost(look) for look in looks].index(True) in range(50, 60)


def test_drops_of_sound_that_cost_more_than_they_last_are_not_waited_for() -> None:
    assert 5 <= lost_after(cpu=1.0, sound=0.2) <= 7
    assert lost_after(cpu=1.0, sound=1.1) is None


def test_a_hang_after_hours_of_good_work_counts_from_its_beginning() -> None:
    pace = Watchdog(Look(0, 0, True, 0, 0))
    assert not any(pace.is_lost(Look(at, at, True, 1000 * at, 0)) for at in range(1, 20))
    assert [pace.is_lost(Look(20 + at, 20 + at, True, 19_000, 0)) for at in range(8)].index(True) in (4, 5)


def test_the_kernel_knows_a_process() -> None:
    mine = vitals(os.getpid())
    if os.path.exists("/proc/self/stat"):  # noqa: PTH110
        assert mine.cpu_s > 0
        assert mine.resident > 1 << 20
    assert vitals(0) == vitals(-1)  # no such process: nothing is known
