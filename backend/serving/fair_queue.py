"""The jobs that wait for the model, in the order of self-clocked fair queueing (Golestani 1994) over seconds of audio.

Rules: a job's finish tag is its length plus the larger of the virtual time and the last finish tag of its request; the
queue is in the order of finish tags, and the virtual time is the largest finish tag so far of the first job of a batch.
So a short command goes before the next chunk of a long recording, and a stream of commands does not starve the chunk.
Jobs that are added to a session together are of similar length. Not thread-safe: the scheduler calls with its lock
held.
"""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Callable, Mapping
from weakref import WeakKeyDictionary

from backend.process.request_stats import RequestStats
from backend.serving.job import Job, RunningSession
from backend.serving.session_kind import SessionKey

# The prompts of a prefill are padded to the longest: none to more than twice its own length, or than a second.
_MAX_LENGTH_RATIO = 2.0
_SHORTEST_S = 0.5
# Where jobs join in groups: the share of a session's places that must be free, or for how long one place. Decision 10
# has the simulation by which they were chosen.
_GROUP_SHARE = 0.5
_MAX_GROUP_WAIT_S = 0.1


class FairQueue:
    """Unbounded: pipeline/admission.py limits how much there can be."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._jobs: list[Job] = []  # by finish tag
        self._count_by_key: Counter[SessionKey] = Counter()
        self._virtual_time = 0.0
        self._last_tags: WeakKeyDictionary[RequestStats, float] = WeakKeyDictionary()  # of each request with jobs

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def audio_s(self) -> float:
        return sum(job.audio_s for job in self._jobs)

    def audio_before_s(self, audio_s: float) -> float:
        """Seconds of waiting audio that go before the end of so much audio of a new request."""
        last = bisect_right(self._jobs, self._virtual_time + audio_s, key=_finish_tag)
        return sum(job.audio_s for job in self._jobs[:last])

    @property
    def first(self) -> Job:
        """The job with the least finish tag. Raises IndexError if the queue is empty."""
        return self._jobs[0]

    def put(self, job: Job) -> None:
        job.finish_tag = max(self._virtual_time, self._last_tags.get(job.owner, 0.0)) + job.audio_s
        self._last_tags[job.owner] = job.finish_tag
        self._insert(job)

    def requeue(self, job: Job) -> None:
        """Queue a job again that was taken, and failed; it keeps its finish tag."""
        job.owner.passage_ended()
        job.queued_at = time.monotonic()
        self._insert(job)

    def remove(self, job: Job) -> None:
        """Remove the job if it is in the queue."""
        at = self._place_of(job)
        if at is not None:
            self._delete(at)
            job.owner.record_wait(job.queued_at)

    def holds(self, job: Job) -> bool:
        """Whether the job is in the queue."""
        return self._place_of(job) is not None

    def _place_of(self, job: Job) -> int | None:
        """The job's place, by bisection: a request may cancel thousands."""
        at = bisect_left(self._jobs, job.finish_tag, key=_finish_tag)
        while at < len(self._jobs) and self._jobs[at].finish_tag == job.finish_tag:
            if self._jobs[at] is job:
                return at
            at += 1
        return None

    def clear(self) -> list[Job]:
        """Remove and return all jobs."""
        jobs, self._jobs = self._jobs, []
        self._count_by_key.clear()
        return jobs

    def take(self, running: Mapping[SessionKey, RunningSession], max_audio_s: float) -> list[Job]:
        """Remove and start the jobs that are added to one session now.

        They are the first job whose session has room, and later jobs of the same key and of similar length. A session
        has room for `max_batch` jobs and `max_audio_s` seconds of audio, but always for one job. A job that is too long
        for the remaining seconds reserves them, so that later, shorter jobs cannot starve it.

        Where jobs join in groups, a session that runs has room only once half of its places are free, or one has been
        for 100 ms: each join stops its steps for a while, however many jobs join.
        """
        load = {key: (len(session.jobs), session.audio_s) for key, session in running.items()}
        closed = {key for key, session in running.items() if not self._has_room(session)}
        # The keys of waiting jobs whose sessions have room. The walk ends when there are none: thousands may wait.
        open_keys = self._count_by_key.keys() - closed
        taken: list[int] = []
        prefill_s = 0.0
        for at, job in enumerate(self._jobs):
            if not open_keys or (job.retry_alone and (running or taken)):
                break  # a retry waits until nothing runs, and later jobs wait behind it
            if job.key not in open_keys or (taken and not _are_similar(job.audio_s, self._jobs[taken[0]].audio_s)):
                continue
            if taken and prefill_s + job.audio_s > job.kind.max_prefill_s:
                break  # later, shorter jobs must not overtake it
            rows, audio_s = load.get(job.key, (0, 0.0))
            if rows and audio_s + job.audio_s > max_audio_s:
                open_keys.discard(job.key)  # reserves the seconds: later jobs of this key wait
                continue
            taken.append(at)
            prefill_s += job.audio_s
            load[job.key] = rows + 1, audio_s + job.audio_s
            is_full = job.retry_alone or rows + 1 >= job.key.max_batch
            open_keys = set() if is_full else {job.key}  # from the first job on, this session only
        if taken:
            if (session := running.get(self._jobs[taken[0]].key)) is not None:
                session.free_since = None
            self._virtual_time = max(self._virtual_time, self._jobs[taken[0]].finish_tag)
        jobs = [self._delete(at) for at in reversed(taken)]
        return [job for job in reversed(jobs) if job.start()]  # False: cancelled meanwhile

    def next_to_prepare(self, batches: int) -> Job | None:
        """The first job that was not offered yet and has something to prepare, of those that fill so many batches."""
        near = self._jobs[: batches * self.first.kind.max_batch] if self._jobs else []
        return next((job for job in near if job.kind.prepare is not None and not job.offered), None)

    def _has_room(self, session: RunningSession) -> bool:
        """Whether waiting jobs may join the session now."""
        free = session.kind.max_batch - len(session.jobs)
        if not free or session.kind.key not in self._count_by_key:
            session.free_since = None
            return False
        if not session.kind.joins_in_groups or free >= _GROUP_SHARE * session.kind.max_batch:
            return True
        now = self._clock()
        session.free_since = now if session.free_since is None else session.free_since
        return now - session.free_since >= _MAX_GROUP_WAIT_S

    def _insert(self, job: Job) -> None:
        insort(self._jobs, job, key=_finish_tag)
        self._count_by_key[job.key] += 1

    def _delete(self, at: int) -> Job:
        job = self._jobs.pop(at)
        self._count_by_key[job.key] -= 1
        if not self._count_by_key[job.key]:
            del self._count_by_key[job.key]  # the key's model may be dropped, and its id used again
        return job


def _finish_tag(job: Job) -> float:
    return job.finish_tag


def _are_similar(audio_s: float, other_s: float) -> bool:
    return max(audio_s, other_s) <= _MAX_LENGTH_RATIO * max(min(audio_s, other_s), _SHORTEST_S)
