"""One decoder process, seen from the server: start it, give it a job, watch it, kill it.

- A process takes another job only after a complete and valid reply. After anything else it is killed, and the job fails
  for that one file.
- It is a new program and not a fork, because the server has threads and a model. Its environment holds what finds its
  libraries and nothing else, and it gets no descriptor but a socket and the log.
- While the server waits for a process, it checks ten times a second whether the client has cancelled and whether the
  process makes progress.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from backend.audio.decoding.causes import CAUSES, CRASHED, TOO_MUCH_MEMORY, TOO_SLOW
from backend.audio.decoding.protocol import (
    DECODED,
    FIRST_GRANT,
    GRANTED,
    INTERNAL_ERROR,
    MORE,
    READY,
    READY_WITHOUT_SANDBOX,
    REFUSED,
    REPLY_FORMAT,
    CorruptReply,
    Reply,
    max_store_bytes,
    new_store,
    next_grant,
    send_job,
    stored_s,
    validated_samples,
)
from backend.audio.decoding.watchdog import ProgressSample, Watchdog, process_counters, sample_progress
from backend.audio.waveform import SAMPLE_BYTES, SAMPLE_RATE, Decoded
from backend.errors import AsrError, Cancelled, EngineFailure, OutOfMemory, UndecodableAudio
from backend.process.machine.system_cause import engine_failure, system_cause
from backend.process.observed_time import ObservedTime

_log = logging.getLogger(__name__)

IsCancelled: TypeAlias = Callable[[], bool]
Reserve: TypeAlias = Callable[[float, float, float], None]

COMMAND = (sys.executable, "-m", "backend.audio.decoding.main")
POLL_INTERVAL_S = 0.1

_ROOT = Path(__file__).parents[3]  # where `-m` finds the program, whatever the working directory is
_ENVIRONMENT = (  # where libraries lie, and whether bytecode is written
    "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "PYTHONNOUSERSITE", "PYTHONUTF8",
    "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX",
)  # fmt: skip
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # mixing channels down needs no thread pool
_BLOCKED_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}  # until the process ignores them itself
_MAX_START_S = 60.0  # a cold disk on a busy machine
_MAX_END_S = 2.0
_BLOCK_BYTES = 512  # the unit of st_blocks
_MAX_REUSED_BYTES = 256 << 20  # resident: a process that has grown beyond it is not used again


class DecoderProcess:
    """A decoder process. Its methods block, and one thread at a time may call them."""

    def __init__(self, command: Sequence[str], is_cancelled: IsCancelled) -> None:
        """Start the process and wait until it is ready. Raises EngineFailure, Cancelled."""
        self._channel, theirs = socket.socketpair()
        self._readable = select.poll()  # not select(): there may be more than 1024 descriptors
        self._readable.register(self._channel, select.POLLIN)
        self._is_reusable = False
        try:
            with theirs:
                self._process = _start(command, theirs)
        except OSError as error:
            self._channel.close()
            _log.error("no decoder can be started: %s", system_cause(error))
            raise engine_failure(error) from None
        starting = ObservedTime()
        try:
            message = self._receive(len(READY), lambda: is_cancelled() or starting.elapsed_s() > _MAX_START_S)
        except Cancelled:
            self.end()
            raise
        if message not in (READY, READY_WITHOUT_SANDBOX):
            _log.error("a decoder did not start: %s", self._exit_description())
            self.end()
            raise EngineFailure
        self._is_reusable = True
        self.has_sandbox = message == READY

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_usable(self) -> bool:
        """Whether it can take a job. A process that has ended, or has sent something without a job, cannot."""
        return self._is_reusable and not self._readable.poll(0)

    def decode(self, fd: int, max_seconds: float, attempt: int, is_cancelled: IsCancelled, reserve: Reserve) -> Decoded:
        """The recording in the open file `fd`. `attempt`, `reserve`: see DecoderPool.decode.

        Raises UndecodableAudio, Cancelled, OutOfMemory, EngineFailure, and what `reserve` raises.
        """
        reserve(0.0, min(FIRST_GRANT / SAMPLE_RATE, max_seconds), 0.0)
        self._is_reusable = False
        with new_store() as store:
            try:
                send_job(self._channel, max_seconds, attempt, fd, store)
                reply = self._reply(store, max_seconds, self._must_stop(fd, store, is_cancelled), reserve)
                if reply.outcome == DECODED:
                    decoded = reply.decoded(validated_samples(store, reply, max_seconds))
                    self._is_reusable = process_counters(self.pid).resident_bytes < _MAX_REUSED_BYTES
                    return decoded
                if reply.outcome == INTERNAL_ERROR:
                    raise EngineFailure
                if reply.outcome >= len(CAUSES):
                    raise CorruptReply
            except (CorruptReply, ConnectionError):
                raise self._crash_error() from None
            except MemoryError:  # for the samples, in this process
                raise OutOfMemory from None
        cause = CAUSES[reply.outcome]
        self._is_reusable = cause != TOO_MUCH_MEMORY
        raise UndecodableAudio(cause)

    def _reply(self, store: int, max_seconds: float, must_stop: IsCancelled, reserve: Reserve) -> Reply:
        """The reply to a job, whose store grows by grants until then."""
        granted, longest = FIRST_GRANT, max_store_bytes(max_seconds) // SAMPLE_BYTES
        while True:
            reply = Reply.unpack(self._receive(REPLY_FORMAT.size, must_stop))
            if reply.outcome != MORE:
                return reply
            if granted >= longest:
                raise CorruptReply
            known_s, granted = granted / SAMPLE_RATE, min(next_grant(granted), longest)
            try:
                reserve(known_s, granted / SAMPLE_RATE, os.fstat(store).st_blocks * _BLOCK_BYTES)
            except AsrError:
                self._channel.sendall(REFUSED)
                self._is_reusable = Reply.unpack(self._receive(REPLY_FORMAT.size, must_stop)).outcome < len(CAUSES)
                raise
            self._channel.sendall(GRANTED)

    def end(self) -> None:
        """Kill the process: it has nothing to clean up."""
        self._channel.close()
        self._process.kill()
        try:
            self._process.wait(_MAX_END_S)
        except subprocess.TimeoutExpired:  # blocked in the kernel by a disk that does not answer; it ends afterwards
            _log.warning("a decoder that was killed has not ended yet")

    def _must_stop(self, fd: int, store: int, is_cancelled: IsCancelled) -> IsCancelled:
        """The check that runs while a job is waited for. It raises UndecodableAudio if the process is stalled."""
        watchdog: Watchdog | None = None  # most files are decoded before the first check

        def must_stop() -> bool:
            nonlocal watchdog
            sample = self._sample_progress(fd, store)
            if watchdog is None:
                watchdog = Watchdog(sample)
            elif watchdog.is_stalled(sample):
                _log.warning("a decoder makes no progress on its file; it is killed")
                raise UndecodableAudio(TOO_SLOW)
            return is_cancelled()

        return must_stop

    def _receive(self, size: int, must_stop: IsCancelled) -> bytes:
        """The next message; b"" if the process has ended. Reads `size` + 1 bytes, to detect a longer message."""
        while not self._readable.poll(POLL_INTERVAL_S * 1000):
            if must_stop():
                raise Cancelled
        try:
            return self._channel.recv(size + 1)
        except ConnectionError:  # it ended with a job unread
            return b""

    def _sample_progress(self, fd: int, store: int) -> ProgressSample:
        # the process reads the file through the same open file description, so its position is also that of `fd`
        return sample_progress(self.pid, decoded_s=stored_s(store), read_bytes=os.lseek(fd, 0, os.SEEK_CUR))

    def _crash_error(self) -> AsrError:
        """The error for a process that ended during its job, or sent a corrupt reply."""
        _log.warning("a decoder failed in the middle of a file: %s", self._exit_description())
        code = self._process.returncode
        return _ERROR_OF_EXIT[code]() if code in _ERROR_OF_EXIT else UndecodableAudio(CRASHED)

    def _exit_description(self) -> str:
        """How the process ended, in words for the log."""
        try:
            code = self._process.wait(POLL_INTERVAL_S)
        except subprocess.TimeoutExpired:
            return "its reply cannot be true"
        return f"exit status {code}" if code >= 0 else f"signal {-code}, {signal.strsignal(-code)}"


_ERROR_OF_EXIT: dict[int, Callable[[], AsrError]] = {
    -signal.SIGXCPU: lambda: UndecodableAudio(TOO_SLOW),
    -signal.SIGKILL: OutOfMemory,  # not sent by us, so by the kernel: the machine is out of memory
}


def _start(command: Sequence[str], stdin: socket.socket) -> subprocess.Popen[bytes]:
    """Start a new program. It inherits this thread's signal mask, so it never receives the group's SIGTERM."""
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED_SIGNALS)
    try:
        return subprocess.Popen(  # noqa: S603 - our own program; nothing of a client's is in the command
            [*command, str(os.getpid())],
            stdin=stdin.fileno(),
            stdout=subprocess.DEVNULL,
            cwd=_ROOT,
            env={**environment, **_ONE_THREAD},
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
