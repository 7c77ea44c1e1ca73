"""Percent of a recording, from what waits in the queue."""

from __future__ import annotations

from devtools.transcribe.progress import Progress


def test_percent_rises_as_the_queue_empties() -> None:
    progress = Progress()
    assert [progress.percent(s) for s in (0, 0, 200, 150, 160, 50, 0)] == [None, None, 0, 25, 25, 75, 99]


def test_the_aligners_passages_are_a_stage_of_their_own() -> None:
    progress = Progress()
    assert [progress.percent(s) for s in (100, 0, 80, 40, 0)] == [0, 99, 0, 50, 99]


def test_sound_that_is_queued_later_counts() -> None:
    progress = Progress()
    assert [progress.percent(s) for s in (100, 50, 200, 100)] == [0, 50, 0, 50]
