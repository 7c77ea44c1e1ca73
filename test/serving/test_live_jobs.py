"""Live jobs beside those of files: places of their own, turns, and prefills of one passage while somebody speaks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from backend.options.load_options import LoadOptions
from backend.process.request_stats import RequestStats
from backend.serving.fair_queue import FairQueue
from backend.serving.job import Job, RunningSession
from backend.serving.model_instance import Lean
from backend.serving.protocols import Utterance
from backend.serving.scheduler import Scheduler
from backend.serving.session_kind import SessionKey, SessionKind

NO_SESSION: Any = None
FILES: SessionKind[Any, Any] = SessionKind(
    "recognition", NO_SESSION, lambda: NO_SESSION, max_batch=2, live_places=2, slow_prefill=True
)
LIVE: SessionKind[Any, Any] = replace(FILES, is_live=True)


class Queue(FairQueue):
    """With a session whose jobs never end by themselves."""

    def __init__(self, kind: SessionKind[Any, Any] = FILES) -> None:
        super().__init__(clock=lambda: 0.0)
        self.kind = kind
        self.session = RunningSession(kind, NO_SESSION)

    def add(self, kind: SessionKind[Any, Any], audio_s: float = 5.0, owner: RequestStats | None = None) -> Job:
        job = Job(kind, object(), audio_s, owner or RequestStats())
        self.put(job)
        return job

    def next(self) -> list[Job]:
        running: Mapping[SessionKey, RunningSession] = {self.kind.key: self.session} if self.session.jobs else {}
        jobs = self.take(running, 1e9)
        self.session.jobs += jobs
        return jobs


def test_a_full_batch_of_files_has_places_for_live_jobs() -> None:
    queue = Queue()
    files = [queue.add(FILES) for _ in range(3)]
    assert queue.next() == files[:2]
    live = [queue.add(LIVE) for _ in range(3)]
    assert queue.next() == live[:2]
    assert queue.next() == []  # neither a file nor a third live job has a place
    queue.session.jobs.remove(files[0])
    assert queue.next() == []  # the third file's turn: live jobs were served last; but it would stop those that run
    queue.session.jobs.remove(live[0])
    queue.session.jobs.remove(live[1])
    assert queue.next() == [files[2]]
    assert queue.next() == [live[2]]


def test_a_file_that_has_no_place_keeps_no_live_job_out() -> None:
    queue = Queue()
    files = [queue.add(FILES) for _ in range(3)]
    assert queue.next() == files[:2]
    for _ in range(2):  # one live job beside another
        live = queue.add(LIVE)
        assert queue.next() == [live]


@pytest.mark.parametrize("joins_in_groups", [False, True])
def test_where_a_prefill_is_short_a_file_waits_for_no_live_job(joins_in_groups: bool) -> None:
    """On servers and on GPUs; and for alignments, which have no steps."""
    kind = replace(FILES, joins_in_groups=joins_in_groups, slow_prefill=False)
    queue = Queue(kind)
    live = queue.add(replace(kind, is_live=True))
    assert queue.next() == [live]
    file = queue.add(kind)
    assert queue.next() == [file]


def test_a_file_too_long_for_the_memory_keeps_no_live_job_out() -> None:
    queue = Queue()
    file, live = queue.add(FILES), queue.add(LIVE)
    assert (queue.next(), queue.next()) == ([live], [])
    queue.session.jobs.clear()
    assert queue.next() == [file]
    live = queue.add(LIVE)
    assert queue.next() == [live]
    queue.add(FILES, 1e9)
    live = queue.add(LIVE)
    assert queue.next() == [live]


def test_live_jobs_may_take_every_place_but_keep_no_file_out_for_good() -> None:
    queue = Queue()
    live = [queue.add(LIVE) for _ in range(5)]
    assert queue.next() == live[:4]
    file = queue.add(FILES)
    assert queue.next() == []
    queue.session.jobs.remove(live[0])
    assert queue.next() == []
    assert len(queue.session.jobs) == 3  # the fifth live job waits behind the file, whose turn it is
    queue.session.jobs.clear()
    assert queue.next() == [file]
    assert queue.next() == live[4:]


def test_where_both_wait_they_take_turns() -> None:
    queue = Queue()
    for _ in range(6):
        queue.add(FILES)
        queue.add(LIVE)
    served = []
    for _ in range(4):
        served.append([job.kind.is_live for job in queue.next()])
        queue.session.jobs.clear()
    assert served == [[True] * 4, [False], [True] * 2, [False] * 2]  # no live job waits behind the last


def test_a_stream_that_decodes_all_the_time_gets_half_of_the_turns_and_so_do_twenty() -> None:
    for streams in (1, 20):
        queue = Queue()
        owners = [RequestStats() for _ in range(streams)]
        for owner in owners:
            queue.add(LIVE, 15.0, owner)
        turns = {False: 0, True: 0}
        for _ in range(40):
            while sum(not job.kind.is_live for job in queue._in_turn()) < 8:
                queue.add(FILES, 30.0)
            (first, *_) = jobs = queue.next()
            turns[first.kind.is_live] += 1
            queue.session.jobs.clear()
            for job in jobs:
                if job.kind.is_live:
                    queue.add(LIVE, 15.0, job.owner)
        assert turns == {False: 20, True: 20}


@pytest.mark.parametrize("cause", ["speaking", "waiting", "in groups", "none"])
def test_files_are_prefilled_one_at_a_time_while_somebody_speaks_or_a_live_job_waits(cause: str) -> None:
    kind = replace(FILES, joins_in_groups=cause == "in groups")
    queue = Queue(kind)
    queue._last_was_live = True
    queue.speaking = cause in ("speaking", "in groups")
    for _ in range(2):
        queue.add(kind)
    if cause == "waiting":
        queue.add(LIVE)
    assert len(queue.next()) == (2 if cause in ("none", "in groups") else 1)


async def test_a_live_decode_is_no_audio_that_was_answered(scheduler: Scheduler, loader) -> None:
    """Else a window that is decoded ten times would make the machine look ten times as fast."""
    lean = Lean(LoadOptions("m"), loader.recognizer)
    item = Utterance(np.zeros(16_000, np.float32), None, "", 9)
    answered: list[float] = []
    scheduler._throughput.add_audio = answered.append  # type: ignore[method-assign,assignment]
    await scheduler.submit(lean.live_recognition, item, audio_s=9.0, is_final=False)
    await scheduler.submit(lean.live_recognition, replace(item, prompt="x"), audio_s=9.0)
    assert answered == [0.0, 9.0]
