"""One child that decodes, from its server's side: started, given a job, watched, ended.

- A child is fit for another job only after a whole and true answer. After anything else it is ended, and what it was
  doing has failed for that one file.
- It is a new program (no fork: threads and a model are here), with a bare environment and no descriptor but a socket.
- Whoever waits looks around ten times a second: for a client that has gone, for a child that does not get on.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from backend.audio.decoding.causes import CAUSES, CRASHED, TOO_HUNGRY, TOO_SLOW
from backend.audio.decoding.protocol import (
    ANSWER,
    DECODED,
    FAULT,
    READY,
    Answer,
    Forged,
    length_s,
    new_store,
    send_job,
    taken,
)
from backend.audio.decoding.watchdog import Look, Watchdog, look, vitals
from backend.audio.waveform import Decoded
from backend.errors import AsrError, Cancelled, EngineFailure, OutOfMemory, UndecodableAudio

_log = logging.getLogger(__name__)

IsGone: TypeAlias = Callable[[], bool]

COMMAND = (sys.executable, "-m", "backend.audio.decoding.main")
LOOK_S = 0.1

_FOLDER = Path(__file__).parents[3]  # where `-m` finds the child, whatever the working directory is
_ENVIRONMENT = ("PATH", "LD_", "DYLD_", "PYTHON", "LANG", "LC_", "TMP")  # how names begin; no token is among them
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # mixing channels down needs no pool
_FOR_SERVERS = {signal.SIGTERM, signal.SIGINT}  # until the child ignores them itself
_LONGEST_START_S = 60.0  # a cold disk on a busy machine
_LONGEST_END_S = 2.0
_MOST_KEPT = 256 << 20  # bytes resident: a child that has grown so far is not kept, whatever it grew by


class DecoderProcess:
    """A child that can decode. Its methods block, and belong to one thread at a time."""

    def __init__(self, command: Sequence[str], is_gone: IsGone) -> None:
        """Start it and wait until it is ready. Raises EngineFailure, Cancelled."""
        self._channel, theirs = socket.socketpair()
        self._readable = select.poll()  # not select(): there may be more than 1024 descriptors
        self._readable.register(self._channel, select.POLLIN)
        self._is_whole = False
        try:
            with theirs:
                self._process = _started(command, theirs)
        except OSError as error:
            self._channel.close()
            _log.error("no decoder can be started: %s", error.strerror)
            raise EngineFailure from None
        late_s = time.monotonic() + _LONGEST_START_S
        try:
            said = self._message(len(READY), lambda: is_gone() or time.monotonic() > late_s)
        except Cancelled:
            self.end()
            raise
        if said != READY:
            _log.error("a decoder did not start: %s", self._ending())
            self.end()
            raise EngineFailure
        self._is_whole = True

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_fit(self) -> bool:
        """Whether it can be given a job. One that has ended, or speaks unasked, cannot."""
        return self._is_whole and not self._readable.poll(0)

    def decode(self, fd: int, max_seconds: float, is_gone: IsGone) -> Decoded:
        """The recording in the open file `fd`. Raises UndecodableAudio, Cancelled, OutOfMemory, EngineFailure."""
        self._is_whole = False
        with new_store() as store:
            pace: Watchdog | None = None  # most files are decoded before anyone looks

            def has_to_end() -> bool:
                nonlocal pace
                seen = self._look(fd, store)
                if pace is None:
                    pace = Watchdog(seen)
                elif pace.is_lost(seen):
                    _log.warning("a decoder was lost in a file; it is ended")
                    raise UndecodableAudio(TOO_SLOW)
                return is_gone()

            try:
                send_job(self._channel, max_seconds, fd, store)
                answer = Answer.unpacked(self._message(ANSWER.size, has_to_end))
                if answer.outcome == DECODED:
                    decoded = Decoded(taken(store, answer, max_seconds), answer.duration_s, answer.truncated)
                    self._is_whole = vitals(self.pid).resident < _MOST_KEPT
                    return decoded
                if answer.outcome == FAULT:
                    raise EngineFailure
                if answer.outcome >= len(CAUSES):
                    raise Forged
            except (Forged, ConnectionError):
                raise self._crash() from None
            except MemoryError:  # for the samples, here
                raise OutOfMemory from None
        cause = CAUSES[answer.outcome]
        self._is_whole = cause != TOO_HUNGRY
        raise UndecodableAudio(cause)

    def end(self) -> None:
        """End it at once: it has nothing to put in order."""
        self._channel.close()
        self._process.kill()
        try:
            self._process.wait(_LONGEST_END_S)
        except subprocess.TimeoutExpired:  # in the kernel, at a disk that does not answer; it ends when that does
            _log.warning("a decoder that was killed has not ended yet")

    def _message(self, size: int, has_to_end: IsGone) -> bytes:
        """What it says next; nothing if it has ended. One byte more than `size` shows that it says too much."""
        while not self._readable.poll(LOOK_S * 1000):
            if has_to_end():
                raise Cancelled
        try:
            return self._channel.recv(size + 1)
        except ConnectionError:  # it ended with a job unread
            return b""

    def _look(self, fd: int, store: int) -> Look:
        # the child reads the file through the same open file description, so its place there is ours
        return look(self.pid, decoded_s=length_s(store), read=os.lseek(fd, 0, os.SEEK_CUR))

    def _crash(self) -> AsrError:
        """What a request is told of a child that ended, or lied, during its job."""
        _log.warning("a decoder failed in the middle of a file: %s", self._ending())
        code = self._process.returncode
        return _TOLD[code]() if code in _TOLD else UndecodableAudio(CRASHED)

    def _ending(self) -> str:
        """How it ended, in words for the log."""
        try:
            code = self._process.wait(LOOK_S)
        except subprocess.TimeoutExpired:
            return "it said what cannot be true"
        return f"exit status {code}" if code >= 0 else f"signal {-code}, {signal.strsignal(-code)}"


_TOLD: dict[int, Callable[[], AsrError]] = {
    -signal.SIGXCPU: lambda: UndecodableAudio(TOO_SLOW),
    -signal.SIGKILL: OutOfMemory,  # not by us, so by the kernel: the machine has no memory left
}


def _started(command: Sequence[str], stdin: socket.socket) -> subprocess.Popen[bytes]:
    """A new program. It inherits this thread's signal mask: deaf to the group's SIGTERM from its first moment on."""
    environment = {name: value for name, value in os.environ.items() if name.startswith(_ENVIRONMENT)}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _FOR_SERVERS)
    try:
        return subprocess.Popen(  # noqa: S603 - our own program; nothing of a client's is in the command
            [*command, str(os.getpid())],
            stdin=stdin.fileno(),
            stdout=subprocess.DEVNULL,
            cwd=_FOLDER,
            env={**environment, **_ONE_THREAD},
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
