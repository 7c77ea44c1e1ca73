"""`python -m backend.audio.decoding.main PARENT`: a process in which recordings are decoded, and nothing else is done.

Its stdin is a socket to the server that started it; jobs come in there, one at a time, and answers go out
(audio/decoding/protocol).

- It has nothing to lose: no path, no port, no model, no secret in its environment; of the server's descriptors it is
  lent two for a job. Its memory, its processor time and what it may write are bounded by the kernel.
- It never outlives its server: it ends when the socket does, and with its parent on Linux, whatever it is doing.
- It leaves stopping to its server: SIGTERM and SIGINT are for the whole group, in which running requests have a grace.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import resource
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from backend.audio.decoding.causes import CAUSES, TOO_HUNGRY
from backend.audio.decoding.decode import decode_open
from backend.audio.decoding.protocol import FAULT, READY, Answer, longest_store, received_job
from backend.errors import UndecodableAudio

Decode: TypeAlias = Callable[[int, int, float], Answer]

# Of its own, without the samples, which are not its memory. With the libraries and what decoders of ordinary files take
# it has about 100 MiB; mapped libraries (50 MiB) come on top: together under 512.
_MOST_MEMORY = 384 << 20
_MOST_DESCRIPTORS = 32
_SLACK_S = 10  # of processor time, beside a second for each second of the longest recording; the server is stricter
_QUIET_S = 0.3  # without a job after the start: time to import what a WAV does not need
_PR_SET_PDEATHSIG = 1


def main(decode: Decode = decode_open) -> None:
    """Decode whatever comes until the server has gone."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    _end_with(int(sys.argv[-1]))
    server = _server()
    for kind, most in (
        (resource.RLIMIT_DATA, _MOST_MEMORY),
        (resource.RLIMIT_NOFILE, _MOST_DESCRIPTORS),
        (resource.RLIMIT_NPROC, 0),  # no threads either; root is exempt
        (resource.RLIMIT_CORE, 0),
    ):
        _lower(kind, most)
    with contextlib.suppress(ConnectionError):
        server.sendall(READY)
        if not select.select([server], [], [], _QUIET_S)[0]:
            with contextlib.suppress(ImportError):  # WAV goes without
                import av  # noqa: F401 - 0.2 s that the first FLAC or MP3 need not wait for
        while (job := received_job(server)) is not None:
            server.sendall(_answer(decode, *job).packed())


def _end_with(parent: int) -> None:
    """Ask the kernel to kill this process when its parent ends. Elsewhere than on Linux the socket's end must do."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was quicker
        os._exit(0)
    with contextlib.suppress(OSError):  # where memory runs out, this is what can be spared
        Path("/proc/self/oom_score_adj").write_text("500")


def _server() -> socket.socket:
    """The socket that is our stdin. Foreign code that reads stdin must not read from it."""
    server = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return server


def _lower(kind: int, most: int) -> None:
    _, hard = resource.getrlimit(kind)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (most, most))


def _answer(decode: Decode, max_seconds: float, audio: int, store: int) -> Answer:
    """Do one job. What decoders raise is none of the client's business; it is said by a number."""
    try:
        _bound(max_seconds)
        return decode(audio, store, max_seconds)
    except UndecodableAudio as refusal:
        return Answer(CAUSES.index(refusal.cause))
    except MemoryError:
        return Answer(CAUSES.index(TOO_HUNGRY))
    except Exception as error:  # noqa: BLE001 - decoders raise what they like; the server must hear of it
        _tell(error)
        return Answer(FAULT)
    finally:
        os.close(audio)
        os.close(store)


def _bound(max_seconds: float) -> None:
    """What this job may take of the processor, and write. Soft limits: the next job has its own."""
    seconds = math.ceil(time.process_time() + max_seconds + _SLACK_S)
    for kind, most in ((resource.RLIMIT_CPU, seconds), (resource.RLIMIT_FSIZE, longest_store(max_seconds))):
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _tell(error: Exception) -> None:
    """Where it failed, in one line, without the error's own text: that may hold what the file says."""
    places = " < ".join(
        f"{Path(at.filename).name}:{at.lineno}" for at in traceback.extract_tb(error.__traceback__)[::-1]
    )
    with contextlib.suppress(OSError):  # a full device
        sys.stderr.write(f"a decoder failed: {type(error).__name__} at {places}\n")
        sys.stderr.flush()


if __name__ == "__main__":
    main()
