"""`python -m backend.audio.decoding.main PARENT`: a decoder process, which decodes recordings and does nothing else.

Its stdin is a socket to the server that started it. Jobs arrive there, one at a time, and replies are sent back
(protocol.py).

- There is nothing in it to attack: no path, no port, no model, no secret in its environment, and two of the server's
  descriptors for each job. The kernel bounds its memory, its processor time and what it may write, and in the sandbox
  (sandbox.py) refuses to open, connect, start or signal anything.
- It never outlives its server: it ends when the socket closes and, on Linux, is killed when its parent ends.
- It ignores SIGTERM, SIGINT and SIGHUP: they go to the whole process group, and the server still finishes requests.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import math
import os
import resource
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from backend.audio.decoding import sandbox
from backend.audio.decoding.causes import CAUSES, TOO_MUCH_MEMORY
from backend.audio.decoding.decode import decode_fd
from backend.audio.decoding.protocol import (
    GRANTED,
    INTERNAL_ERROR,
    MORE,
    READY,
    READY_WITHOUT_SANDBOX,
    REFUSED,
    Reply,
    max_store_bytes,
    receive_job,
)
from backend.errors import UndecodableAudio
from backend.process.machine.system_cause import system_cause

Decode: TypeAlias = Callable[[int, int, float, int, Callable[[], None]], Reply]

# Private data; the samples are shared memory and do not count. With its libraries and what decoders of ordinary files
# take, the process has about 100 MiB. Mapped libraries (50 MiB) come on top: together under 512 MiB.
_MAX_DATA_BYTES = 384 << 20
_MAX_DESCRIPTORS = 32
_CPU_SLACK_S = 10  # processor time, beside a second for each second of the longest recording; the watchdog is stricter
_PR_SET_PDEATHSIG = 1
# What FFmpeg's wrapper imports while it opens a file, and what ffmpeg.py and placement.py import when they need it.
_LATER_IMPORTS = (
    "av", "av.logging", "av.stream", "av.audio.stream", "av.audio.codeccontext", "av.video.stream",
    "av.video.codeccontext", "av.subtitles.stream", "av.subtitles.codeccontext",
)  # fmt: skip


def main(decode: Decode = decode_fd) -> None:
    """Decode one job after the other until the server closes the socket."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _end_with_parent(int(sys.argv[-1]))
    server = _server_socket()
    for kind, limit in (
        (resource.RLIMIT_DATA, _MAX_DATA_BYTES),
        (resource.RLIMIT_NOFILE, _MAX_DESCRIPTORS),
        (resource.RLIMIT_NPROC, 0),  # no threads either; root is exempt
        (resource.RLIMIT_CORE, 0),
    ):
        _set_hard_limit(kind, limit)
    with contextlib.suppress(ImportError):  # a WAV is decoded without it
        for name in _LATER_IMPORTS:  # in the sandbox no file can be opened
            importlib.import_module(name)
    os.environ.clear()
    with contextlib.suppress(ConnectionError):
        server.sendall(READY if sandbox.enter() else READY_WITHOUT_SANDBOX)
        while (job := receive_job(server)) is not None:
            server.sendall(_reply(decode, *job, lambda: _ask_for_more(server)).pack())


def _ask_for_more(server: socket.socket) -> None:
    """Wait until the store may grow. Raises MemoryError if it may not."""
    server.sendall(Reply(MORE).pack())
    answer = server.recv(len(GRANTED))
    if not answer:
        os._exit(0)  # the server has closed the socket
    if answer == REFUSED:
        raise MemoryError


def _end_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends. On other systems than Linux the closed socket ends it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent ended before prctl
        os._exit(0)
    with contextlib.suppress(OSError):  # where memory runs out, this process is the one to kill
        Path("/proc/self/oom_score_adj").write_text("500")


def _server_socket() -> socket.socket:
    """The socket that is our stdin, moved away from descriptor 0: foreign code that reads stdin must not read it."""
    server = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return server


def _set_hard_limit(kind: int, limit: int) -> None:
    _, hard = resource.getrlimit(kind)
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(kind, (limit, limit))


def _reply(decode: Decode, max_seconds: float, attempt: int, audio: int, store: int, more: Callable[[], None]) -> Reply:
    """Do one job. A failure is reported as a number; no error text leaves this process but the log line."""
    try:
        _set_job_limits(max_seconds)
        return decode(audio, store, max_seconds, attempt, more)
    except UndecodableAudio as refusal:
        return Reply(CAUSES.index(refusal.cause))
    except MemoryError:
        return Reply(CAUSES.index(TOO_MUCH_MEMORY))
    except Exception as error:  # noqa: BLE001 - decoders raise anything; the server needs a reply
        _log_failure(error)
        return Reply(INTERNAL_ERROR)
    finally:
        os.close(audio)
        os.close(store)


def _set_job_limits(max_seconds: float) -> None:
    """Bound this job's processor time and output. These are soft limits, because the next job gets its own."""
    cpu_s = math.ceil(time.process_time() + max_seconds + _CPU_SLACK_S)
    for kind, limit in ((resource.RLIMIT_CPU, cpu_s), (resource.RLIMIT_FSIZE, max_store_bytes(max_seconds))):
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _log_failure(error: Exception) -> None:
    """Log the error's type, what the system refused, and the places in one line, without the error's text: that may
    repeat the file's content.
    """
    places = " < ".join(
        f"{Path(at.filename).name}:{at.lineno}" for at in traceback.extract_tb(error.__traceback__)[::-1]
    )
    with contextlib.suppress(OSError):  # a full device
        kind = ": ".join(filter(None, (type(error).__name__, system_cause(error))))
        sys.stderr.write(f"a decoder failed: {kind} at {places}\n")
        sys.stderr.flush()


if __name__ == "__main__":
    main()
