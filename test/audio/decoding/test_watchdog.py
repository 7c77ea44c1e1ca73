"""When a decoder process is killed: by its own time and not by the clock, whatever its file makes it do."""

from __future__ import annotations

import os
from typing import Any

import pytest

from backend.audio.decoding.watchdog import ProgressSample, Watchdog, process_counters


def stalled_after(*, cpu: float, is_waiting: bool = True, sound: float = 0.0, bytes_read: float = 0.0) -> Any:
    """Seconds until a process with these rates per second is stalled; None if it may run for an hour."""

    def sample(tenths: int) -> ProgressSample:
        at_s = tenths / 10
        return ProgressSample(at_s, cpu * at_s, is_waiting, sound * at_s, int(bytes_read * at_s))

    watchdog = Watchdog(sample(0))
    return next((tenths / 10 for tenths in range(1, 36_000) if watchdog.is_stalled(sample(tenths))), None)


def test_computing_or_sleeping_without_a_result_is_stalled_after_five_seconds() -> None:
    assert 5 <= stalled_after(cpu=1.0) <= 5.2
    assert 5 <= stalled_after(cpu=0.0, is_waiting=False) <= 5.2


def test_waiting_for_a_core_or_a_disk_is_allowed_for_half_a_minute() -> None:
    assert 30 <= stalled_after(cpu=0.0) <= 30.2
    assert 25 <= stalled_after(cpu=0.2) <= 25.2


def test_a_process_that_makes_progress_may_be_slow() -> None:
    assert stalled_after(cpu=1.0, sound=100) is None
    assert stalled_after(cpu=0.01, sound=0.1) is None
    assert stalled_after(cpu=0.1, is_waiting=False, sound=1.0) is None


def test_reading_on_in_a_file_without_sound_is_progress() -> None:
    assert stalled_after(cpu=0.001, bytes_read=100_000) is None


def test_reading_the_same_bytes_again_is_no_progress() -> None:
    watchdog = Watchdog(ProgressSample(0, 0, True, 0, 0))
    samples = [ProgressSample(tenths / 10, tenths / 10, True, 0, tenths % 7 * 1000) for tenths in range(1, 100)]
    assert [watchdog.is_stalled(sample) for sample in samples].index(True) in range(50, 60)


def test_sound_may_not_take_longer_to_decode_than_it_lasts() -> None:
    assert 5 <= stalled_after(cpu=1.0, sound=0.2) <= 7
    assert stalled_after(cpu=1.0, sound=1.1) is None


def test_a_hang_after_hours_of_progress_counts_from_its_start() -> None:
    watchdog = Watchdog(ProgressSample(0, 0, True, 0, 0))
    assert not any(watchdog.is_stalled(ProgressSample(at, at, True, 1000 * at, 0)) for at in range(1, 20))
    hang = [ProgressSample(20 + at, 20 + at, True, 19_000, 0) for at in range(8)]
    assert [watchdog.is_stalled(sample) for sample in hang].index(True) in (4, 5)


def test_the_counters_of_a_process_are_read() -> None:
    mine = process_counters(os.getpid())
    if os.path.exists("/proc/self/stat"):  # noqa: PTH110
        assert mine.cpu_s > 0
        assert mine.resident_bytes > 1 << 20
    assert process_counters(0) == process_counters(-1)  # no such process: no counters


@pytest.mark.parametrize("is_waiting", [True, False])
def test_a_process_that_was_frozen_together_with_its_watchdog_is_not_stalled(is_waiting: bool) -> None:
    watchdog = Watchdog(ProgressSample(0, 0, is_waiting, 0, 0))
    thawed = [ProgressSample(at, 0, is_waiting, 0, 0) for at in (0.1, 600.1, 600.2, 1200.2)]
    assert not any(watchdog.is_stalled(sample) for sample in thawed)
