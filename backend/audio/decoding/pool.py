"""A pool of decoder processes: a path in, its samples out. Whatever a decoder does costs one request at most.

- The file is opened in this process (safe_open.py). A first check runs in threads of its own, so that a bad path does
  not queue behind running decodes, and a network share that does not answer costs one such thread and one request.
  Only a decoder process (process.py) reads the content, through the descriptor.
- The pool grows, up to a maximum, when a request has waited a moment for a process, and keeps one warm. A process that
  fails is killed and replaced in the background; if none can be started, the request fails and the next one retries.
- A client that cancels is noticed within a tenth of a second, whatever the process is doing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from backend.audio.decoding.causes import UNREACHABLE
from backend.audio.decoding.process import COMMAND, POLL_INTERVAL_S, DecoderProcess, IsCancelled, Reserve
from backend.audio.decoding.safe_open import check, open_regular_file
from backend.audio.waveform import Decoded
from backend.errors import AsrError, Cancelled, UndecodableAudio
from backend.process.observed_time import MAX_GAP_S, ObservedTime

_log = logging.getLogger(__name__)

_MAX_PROCESSES = 4  # also on one core: a command of three seconds must not wait behind one recording of hours
# To start a process takes a core for a third of a second, in which one that runs decodes half an hour of audio: eight
# clips at once, for which three were started, took twice as long as without. Longer ones are waited for no longer.
_PATIENCE_S = 0.05
_MAX_OPEN = 16  # files that are open at once: those being decoded, and those waiting for a process
_MAX_CHECKS = 16  # files that are checked at once; when so many hang, no request is served
_CHECK_TIMEOUT_S = 5.0  # a disk that has to spin up may take as long


class DecoderPool:
    """Decodes recordings. Starts no process before `decode` or `warm_up` is called."""

    def __init__(
        self,
        command: Sequence[str] = COMMAND,
        max_processes: int = _MAX_PROCESSES,
        check: Callable[[str], None] = check,
        check_timeout_s: float = _CHECK_TIMEOUT_S,
    ) -> None:
        self._command = command
        self._max_processes = max_processes
        self._decoding = ThreadPoolExecutor(_MAX_OPEN, "decode")  # a process ends with the thread that started it
        self._check = check
        self._check_timeout_s = check_timeout_s
        self._checking = ThreadPoolExecutor(_MAX_CHECKS, "open")
        self._free_checks = asyncio.Semaphore(_MAX_CHECKS)
        self._idle: list[DecoderProcess] = []  # last in, first out: the others may be swapped out
        self._count = 0  # of all processes: idle, decoding, being started
        self._is_refilling = False
        self._is_closed = False
        self._is_warned = False  # that the processes have no sandbox
        self._changed = threading.Condition()

    def warm_up(self) -> None:
        """Start a process in the background if there is none. Does not block."""
        with self._changed:
            if not self._count:
                self._schedule_refill()

    async def decode(
        self, path: str, *, max_seconds: float, attempt: int = 0, reserve: Reserve = lambda *_: None
    ) -> Decoded:
        """The recording in the file `path`.

        `attempt`: which of its sound tracks, in the order in which they are tried: 0 is the container's default, and
        the reply's own attempt and 1 the next. UndecodableAudio where there are no more.
        `reserve` is called, in another thread, before memory is taken: with the seconds that the recording has at
        least, those to which its samples may grow, and the bytes that they take now. What it raises ends the decoding.

        Raises UndecodableAudio if there is none, or one of more than `max_seconds`; OutOfMemory if the machine has no
        memory for it; EngineFailure if it is not the file's fault.
        """
        await self._check_path(path)
        cancelled = threading.Event()

        def is_cancelled() -> bool:
            return cancelled.is_set() or self._is_closed

        work = asyncio.get_running_loop().run_in_executor(
            self._decoding, self._decode, path, max_seconds, attempt, is_cancelled, reserve
        )
        try:
            return await work
        finally:
            cancelled.set()

    async def _check_path(self, path: str) -> None:
        """Raises UndecodableAudio if there is nothing to decode at the path, or if the check takes too long."""
        checking = asyncio.ensure_future(self._run_check(path))
        done: set[asyncio.Future[Exception | None]] = set()
        observed = ObservedTime()  # a server that was frozen and thawed gives the check the rest of its time
        try:  # not wait_for, which may swallow a cancellation
            while not done and (left_s := self._check_timeout_s - observed.elapsed_s()) > 0:
                done, _ = await asyncio.wait({checking}, timeout=min(left_s, MAX_GAP_S))
        finally:
            checking.cancel()
        error = checking.result() if done else UndecodableAudio(UNREACHABLE)
        if error is not None:
            raise error

    async def _run_check(self, path: str) -> Exception | None:
        await self._free_checks.acquire()  # in the executor's own queue, checks that have timed out would stay queued
        running = asyncio.get_running_loop().run_in_executor(self._checking, self._check_error, path)
        running.add_done_callback(lambda _: self._free_checks.release())
        return await asyncio.shield(running)

    def _check_error(self, path: str) -> Exception | None:
        """The error of the check, returned and not raised: asyncio logs an exception that is never retrieved."""
        try:
            self._check(path)
        except (UndecodableAudio, OSError) as error:
            return error
        return None

    def close(self) -> None:
        """End all processes. Requests that still wait for one fail with Cancelled."""
        with self._changed:
            self._is_closed = True
            idle, self._idle = self._idle, []
            self._changed.notify_all()
        for process in idle:
            process.end()
        self._checking.shutdown(wait=False, cancel_futures=True)
        self._decoding.shutdown(cancel_futures=True)

    def _decode(
        self, path: str, max_seconds: float, attempt: int, is_cancelled: IsCancelled, reserve: Reserve
    ) -> Decoded:
        with open_regular_file(path) as fd:
            process = self._acquire(is_cancelled)
            try:
                return process.decode(fd, max_seconds, attempt, is_cancelled, reserve)
            finally:
                self._release(process)

    def _acquire(self, is_cancelled: IsCancelled) -> DecoderProcess:
        """A process for one job: an idle one, a new one, or the next that is released."""
        while True:
            process = self._idle_or_slot(is_cancelled)
            if process is None:
                return self._start_in_slot()
            if process.is_usable:
                return process
            self._discard(process)  # it ended while it was idle, which is not the file's fault

    def _idle_or_slot(self, is_cancelled: IsCancelled) -> DecoderProcess | None:
        """An idle process; or None, and a slot for a new one is reserved. Blocks until there is either."""
        began = time.monotonic()
        with self._changed:
            while not is_cancelled():
                if self._idle:
                    return self._idle.pop()
                patience_s = began + _PATIENCE_S - time.monotonic() if self._count else 0.0
                if self._count < self._max_processes and patience_s <= 0:
                    self._count += 1
                    return None
                self._changed.wait(patience_s if patience_s > 0 else POLL_INTERVAL_S)
        raise Cancelled

    def _start_in_slot(self) -> DecoderProcess:
        try:
            process = DecoderProcess(self._command, lambda: self._is_closed)
        except BaseException:
            self._free_slot()
            raise
        if not (process.has_sandbox or self._is_warned):
            self._is_warned = True
            _log.warning("the system offers no seccomp filter: decoders run without a sandbox, see SECURITY.md")
        return process

    def _release(self, process: DecoderProcess) -> None:
        if not self._return_to_idle(process):
            self._discard(process)
            with self._changed:
                self._schedule_refill()

    def _return_to_idle(self, process: DecoderProcess) -> bool:
        """Make the process available for the next job; False if it cannot take one."""
        with self._changed:
            if self._is_closed or not process.is_usable:
                return False
            self._idle.append(process)
            self._changed.notify()
            return True

    def _discard(self, process: DecoderProcess) -> None:
        process.end()  # not under the lock, which Health takes: a process may end slowly
        self._free_slot()

    def _free_slot(self) -> None:
        with self._changed:
            self._count -= 1
            self._changed.notify()

    def _schedule_refill(self) -> None:
        if not (self._is_closed or self._is_refilling or self._idle):
            self._is_refilling = True
            with contextlib.suppress(RuntimeError):  # no thread is left for it: the next that is free takes it
                self._decoding.submit(self._refill)

    def _refill(self) -> None:
        """Start one process, unless there is an idle one meanwhile."""
        with self._changed:
            self._is_refilling = False
            if self._is_closed or self._idle or self._count >= self._max_processes:
                return
            self._count += 1
        with contextlib.suppress(AsrError):  # it is logged, and the next request tries again
            process = self._start_in_slot()
            if not self._return_to_idle(process):
                self._discard(process)  # not replaced: what dies at its start would be started again and again
