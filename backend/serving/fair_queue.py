"""The jobs that wait for the model, in the order of self-clocked fair queueing (Golestani 1994) over seconds of audio.

Rules: a job's finish tag is its length plus the larger of the virtual time and the last finish tag of its request; the
queue is in the order of finish tags, and the virtual time is the largest finish tag so far of the first job of a batch.
So a short command goes before the next chunk of a long recording, and a stream of commands does not starve the chunk.
Jobs that are added to a session together are of similar length.

Live jobs (session_kind.py) are a class of their own, with its own tags. Where both classes wait they take turns, so a
caption waits for one prefill of a file at most, and twenty streams leave the files their share. While a live job waits
or somebody speaks, files are prefilled one passage at a time, but not where jobs join in groups. Where a prefill is
slow, a file's also waits for the live jobs that run, whose decode would stop for it; live jobs that come then wait
behind it.

Not thread-safe: the scheduler calls with its lock held.
"""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, islice
from typing import NamedTuple
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


def _retries(running: Mapping[SessionKey, RunningSession]) -> bool:
    """Whether a retry runs, alone as it must: what joined it could make it fail for good."""
    jobs = [session.jobs for session in running.values()]
    return len(jobs) == 1 and len(jobs[0]) == 1 and jobs[0][0].retry_alone


def _waits_for_live(job: Job, running: Mapping[SessionKey, RunningSession]) -> bool:
    return job.kind.slow_prefill and not job.kind.is_live and any(session.has_live for session in running.values())


class _Lane(NamedTuple):
    """The jobs that may be added to a session together: those of one session and one class."""

    key: SessionKey
    is_live: bool


class _Tags:
    """The virtual time of one class, and the last finish tag of each of its requests with jobs."""

    def __init__(self) -> None:
        self.virtual_time = 0.0
        self.last: WeakKeyDictionary[RequestStats, float] = WeakKeyDictionary()


class FairQueue:
    """Unbounded: pipeline/admission.py limits how much there can be."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._jobs: dict[bool, list[Job]] = {False: [], True: []}  # of each class, live or not, by finish tag
        self._count_by_lane: Counter[_Lane] = Counter()
        self._tags = {False: _Tags(), True: _Tags()}
        self._last_was_live = False
        self.speaking = 0  # live streams in which somebody speaks

    def __len__(self) -> int:
        return sum(map(len, self._jobs.values()))

    @property
    def audio_s(self) -> float:
        return sum(job.audio_s for job in self._in_turn())

    @property
    def has_live(self) -> bool:
        """Whether a live job waits."""
        return bool(self._jobs[True])

    def audio_before_s(self, audio_s: float) -> float:
        """Seconds of waiting audio that go before the end of so much audio of a new file, without live streams'."""
        jobs = self._jobs[False]
        last = bisect_right(jobs, self._tags[False].virtual_time + audio_s, key=_finish_tag)
        return sum(job.audio_s for job in jobs[:last])

    @property
    def first(self) -> Job:
        """The job whose turn is next. Raises StopIteration if the queue is empty."""
        return next(self._in_turn())

    def put(self, job: Job) -> None:
        tags = self._tags[job.kind.is_live]
        job.finish_tag = max(tags.virtual_time, tags.last.get(job.owner, 0.0)) + job.audio_s
        tags.last[job.owner] = job.finish_tag
        self._insert(job)

    def requeue(self, job: Job) -> None:
        """Queue a job again that was taken, and failed; it keeps its finish tag."""
        job.owner.passage_ended()
        job.queued_at = time.monotonic()
        self._insert(job)

    def remove(self, job: Job) -> None:
        """Remove the job if it is in the queue."""
        if self._delete(job):
            job.owner.record_wait(job.queued_at)

    def holds(self, job: Job) -> bool:
        """Whether the job is in the queue."""
        return self._place_of(job) is not None

    def _place_of(self, job: Job) -> int | None:
        """The job's place in its class, by bisection: a request may cancel thousands."""
        jobs = self._jobs[job.kind.is_live]
        at = bisect_left(jobs, job.finish_tag, key=_finish_tag)
        while at < len(jobs) and jobs[at].finish_tag == job.finish_tag:
            if jobs[at] is job:
                return at
            at += 1
        return None

    def clear(self) -> list[Job]:
        """Remove and return all jobs."""
        jobs = [*self._in_turn()]
        self._jobs = {False: [], True: []}
        self._count_by_lane.clear()
        return jobs

    def take(self, running: Mapping[SessionKey, RunningSession], max_audio_s: float) -> list[Job]:
        """Remove and start the jobs that are added to one session now.

        They are the first job whose session has room, and later jobs of the same lane and of similar length. A session
        has room for `max_batch` jobs of files, for more where they are live, and for `max_audio_s` seconds of audio,
        but always for one job. A job that is too long for the remaining seconds reserves them, so that later, shorter
        jobs cannot starve it.

        Where jobs join in groups, a session that runs has room only once half of its places are free, or one has been
        for 100 ms: each join stops its steps for a while, however many jobs join. Live jobs do not wait for that.
        """
        # The lanes of waiting jobs whose sessions have room. The walk ends when there are none: thousands may wait.
        open_lanes = set() if _retries(running) else self._open_lanes(running)
        load: dict[_Lane, tuple[int, float]] = {}  # free places, seconds of audio
        taken: list[Job] = []
        prefill_s = 0.0
        for job in self._in_turn():
            if not open_lanes or (job.retry_alone and (running or taken)):
                break  # a retry waits until nothing runs, and later jobs wait behind it
            lane = _lane(job)
            if lane not in open_lanes or (taken and not _are_similar(job.audio_s, taken[0].audio_s)):
                continue
            if taken and prefill_s + job.audio_s > job.kind.max_prefill_s:
                break  # later, shorter jobs must not overtake it
            free, audio_s = load.get(lane) or _load(job, running.get(job.key))
            if audio_s and audio_s + job.audio_s > max_audio_s:
                open_lanes.discard(lane)  # reserves the seconds: later jobs of this lane wait
                continue
            if _waits_for_live(job, running):
                break  # live jobs behind it wait, too: it is the files' turn
            taken.append(job)
            prefill_s += job.audio_s
            load[lane] = free - 1, audio_s + job.audio_s
            is_full = job.retry_alone or free == 1 or self._joins_alone(job)
            open_lanes = set() if is_full else {lane}  # from the first job on, this session only
        if taken:
            self._record_turn(taken[0], running.get(taken[0].key))
        for job in taken:
            self._delete(job)
        return [job for job in taken if job.start()]  # False: cancelled meanwhile

    def next_to_prepare(self, batches: int) -> Job | None:
        """The first job that was not offered yet and has something to prepare, of those that fill so many batches."""
        if not len(self):
            return None
        near = islice(self._in_turn(), batches * self.first.kind.max_batch)
        return next((job for job in near if job.kind.prepare is not None and not job.offered), None)

    def _in_turn(self) -> Iterator[Job]:
        """The jobs of both classes: first those of the class that was not served last."""
        is_live = not self._last_was_live
        return chain(self._jobs[is_live], self._jobs[not is_live])

    def _record_turn(self, first: Job, session: RunningSession | None) -> None:
        """A batch of jobs is taken, of which this is the first, for a session that runs or a new one (None)."""
        if session is not None and not first.kind.is_live:
            session.free_since = None
        tags = self._tags[first.kind.is_live]
        tags.virtual_time = max(tags.virtual_time, first.finish_tag)
        self._last_was_live = first.kind.is_live

    def _joins_alone(self, job: Job) -> bool:
        """Whether no other job is prefilled with it, so that captions wait less."""
        return not (job.kind.is_live or job.kind.joins_in_groups) and bool(self.speaking or self.has_live)

    def _open_lanes(self, running: Mapping[SessionKey, RunningSession]) -> set[_Lane]:
        for key, session in running.items():
            if _Lane(key, False) not in self._count_by_lane:
                session.free_since = None
        return {lane for lane in self._count_by_lane if self._has_room(lane, running.get(lane.key))}

    def _has_room(self, lane: _Lane, session: RunningSession | None) -> bool:
        """Whether waiting jobs of the lane may join the session now, or open it if it is None."""
        if session is None:
            return True
        free = session.free_places(live=lane.is_live)
        if lane.is_live:
            return free > 0
        if not free:
            session.free_since = None
            return False
        if not session.kind.joins_in_groups or free >= _GROUP_SHARE * session.kind.max_batch:
            return True
        now = self._clock()
        session.free_since = now if session.free_since is None else session.free_since
        return now - session.free_since >= _MAX_GROUP_WAIT_S

    def _insert(self, job: Job) -> None:
        insort(self._jobs[job.kind.is_live], job, key=_finish_tag)
        self._count_by_lane[_lane(job)] += 1

    def _delete(self, job: Job) -> bool:
        """Remove the job; False if it is not there."""
        at = self._place_of(job)
        if at is None:
            return False
        del self._jobs[job.kind.is_live][at]
        lane = _lane(job)
        self._count_by_lane[lane] -= 1
        if not self._count_by_lane[lane]:
            del self._count_by_lane[lane]  # the key's model may be dropped, and its id used again
        return True


def _lane(job: Job) -> _Lane:
    return _Lane(job.key, job.kind.is_live)


def _load(job: Job, session: RunningSession | None) -> tuple[int, float]:
    """The free places for jobs like this in its session, and the seconds of audio in it; None: it is not open yet."""
    if session is None:
        return job.kind.max_batch + (job.kind.live_places if job.kind.is_live else 0), 0.0
    return session.free_places(live=job.kind.is_live), session.audio_s


def _finish_tag(job: Job) -> float:
    return job.finish_tag


def _are_similar(audio_s: float, other_s: float) -> bool:
    return max(audio_s, other_s) <= _MAX_LENGTH_RATIO * max(min(audio_s, other_s), _SHORTEST_S)
