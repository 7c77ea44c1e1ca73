"""Which jobs the fair queue takes: as a plain walk of the whole queue would, without one where sessions are full."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from backend.process.request_stats import RequestStats
from backend.serving.fair_queue import FairQueue
from backend.serving.job import Job, RunningSession
from backend.serving.session_kind import SessionKey, SessionKind

Running = Mapping[SessionKey, RunningSession]
NO_SESSION: Any = None  # the queue looks at the jobs of a session alone


def kind_of(work: str, max_batch: int, max_prefill_s: float = math.inf) -> SessionKind[Any, Any]:
    return SessionKind(work, kind_of, lambda: NO_SESSION, max_batch, max_prefill_s)


def walked(jobs: Sequence[Job], running: Running, max_audio_s: float) -> list[Job]:
    """The jobs that one walk of the whole queue takes, by the rules of FairQueue.take."""
    if any(job.retry_alone for session in running.values() for job in session.jobs):
        return []
    room = {key: (len(session.jobs), session.audio_s) for key, session in running.items()}
    taken: list[Job] = []
    reserved: set[SessionKey] = set()
    for job in jobs:
        if job.retry_alone and (running or taken):
            break
        if taken and (job.key != taken[0].key or not are_similar(job.audio_s, taken[0].audio_s)):
            continue
        if taken and sum(other.audio_s for other in taken) + job.audio_s > job.kind.max_prefill_s:
            break
        rows, audio_s = room.get(job.key, (0, 0.0))
        if rows and audio_s + job.audio_s > max_audio_s:
            reserved.add(job.key)
        if rows >= job.kind.max_batch or job.key in reserved:
            continue
        taken.append(job)
        room[job.key] = rows + 1, audio_s + job.audio_s
        if job.retry_alone:
            break
    return taken


def are_similar(audio_s: float, other_s: float) -> bool:
    return max(audio_s, other_s) <= 2 * max(min(audio_s, other_s), 0.5)


lengths = st.sampled_from([0.2, 1.0, 2.0, 3.0, 5.0, 15.0, 30.0])
waiting_jobs = st.lists(
    st.tuples(st.integers(0, 1), lengths, st.integers(0, 2), st.sampled_from([False] * 4 + [True])), max_size=16
)  # kind, length, request, retry_alone
limits = st.tuples(st.integers(1, 6), st.sampled_from([4.0, 12.0, 40.0, math.inf]))


@settings(max_examples=500)
@given(
    waiting=waiting_jobs,
    kinds=st.lists(limits, min_size=2, max_size=2),
    running_lengths=st.one_of(st.just([[], []]), st.lists(st.lists(lengths, max_size=4), min_size=2, max_size=2)),
    max_audio_s=st.sampled_from([6.0, 20.0, 60.0, math.inf]),
    ended=st.lists(st.integers(0, 1), max_size=8),
)
def test_the_same_jobs_are_taken_as_by_a_walk_of_the_whole_queue(
    waiting: list[tuple[int, float, int, bool]],
    kinds: list[tuple[int, float]],
    running_lengths: list[list[float]],
    max_audio_s: float,
    ended: list[int],
) -> None:
    """Taken again and again, while sessions fill and end, until no session has room."""
    all_kinds = [kind_of(f"work {number}", *of_kind) for number, of_kind in enumerate(kinds)]
    owners = [RequestStats() for _ in range(3)]
    queue = FairQueue()
    for number, audio_s, request, retry_alone in waiting:
        queue.put(Job(all_kinds[number], "item", audio_s, owners[request], retry_alone=retry_alone))
    running: dict[SessionKey, RunningSession] = {}
    for kind, audio in zip(all_kinds, running_lengths, strict=True):
        if audio:
            jobs = [Job(kind, "item", audio_s, RequestStats()) for audio_s in audio[: kind.max_batch]]
            running[kind.key] = RunningSession(kind, NO_SESSION, jobs)
    left = list(queue._in_turn())
    ends = iter(ended)
    while True:
        expected = walked(left, running, max_audio_s)
        taken = queue.take(running, max_audio_s)
        assert taken == expected
        left = [job for job in left if job not in taken]
        assert list(queue._in_turn()) == left
        assert sum(queue._count_by_lane.values()) == len(left)
        if taken:
            running.setdefault(taken[0].key, RunningSession(taken[0].kind, NO_SESSION, [])).jobs += taken
        elif (end := next(ends, None)) is None:
            break
        else:
            running.pop(all_kinds[end].key, None)


class WatchedJob(Job):
    """Counts how often a walk of the queue has looked at a job."""

    looks = itertools.count()

    def __getattribute__(self, name: str) -> Any:
        if name == "retry_alone":
            next(WatchedJob.looks)
        return super().__getattribute__(name)


def test_a_queue_of_thousands_is_not_walked_when_all_sessions_are_full() -> None:
    queue, kinds = FairQueue(), [kind_of("recognition", 8), kind_of("alignment", 8)]
    for number in range(4000):
        queue.put(WatchedJob(kinds[number % 2], "item", 15.0, RequestStats()))
    running: dict[SessionKey, RunningSession] = {}
    for kind in kinds:
        jobs = queue.take(running, math.inf)
        assert len(jobs) == 8
        running[jobs[0].key] = RunningSession(kind, NO_SESSION, jobs)
    assert set(running) == {kind.key for kind in kinds}
    WatchedJob.looks = itertools.count()
    assert queue.take(running, math.inf) == []
    assert next(WatchedJob.looks) == 0
    running[kinds[1].key].jobs.pop()
    assert len(queue.take(running, math.inf)) == 1
    assert next(WatchedJob.looks) < 10


def test_a_queue_keeps_no_key_of_a_kind_without_waiting_jobs() -> None:
    """The model of such a kind may be dropped, and another one may get its id."""
    queue = FairQueue()
    jobs = [Job(kind_of(work, 2), "item", 5.0, RequestStats()) for work in ("a", "a", "b", "b", "c")]
    for job in jobs:
        queue.put(job)
    assert queue.take({}, math.inf) == jobs[:2]
    queue.remove(jobs[4])
    assert set(queue._count_by_lane) == {(jobs[2].key, False)}
    queue.clear()
    assert not queue._count_by_lane
