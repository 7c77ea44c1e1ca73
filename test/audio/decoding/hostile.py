"""A decoder process like the real one, except for files that hold the name of a hostile action."""

from __future__ import annotations

import ctypes
import os
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path.cwd()))  # a DecoderPool starts its processes in the repository's root

import numpy as np

from backend.audio.decoding import main
from backend.audio.decoding.decode import decode_fd
from backend.audio.decoding.protocol import DECODED, Reply
from backend.audio.waveform import Flaw

native = ctypes.PyDLL(None)  # keeps the interpreter's lock


def segfault(_audio: int, _store: int) -> None:
    native.memset(None, 0, 1)


def abort(_audio: int, _store: int) -> None:
    os.abort()


def leave(_audio: int, _store: int) -> None:
    os._exit(0)


def be_killed(_audio: int, _store: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def sleep(_audio: int, _store: int) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while True:
        native.sleep(3600)


def spin(_audio: int, _store: int) -> None:
    while True:
        pass


def stop(_audio: int, _store: int) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def eat(_audio: int, _store: int) -> None:
    eaten = []
    while True:
        eaten.append(np.ones(1 << 20))


def eat_natively(_audio: int, _store: int) -> None:
    native.malloc.restype = ctypes.c_void_p
    while True:
        native.memset(ctypes.c_void_p(native.malloc(1 << 20)), 1, 1 << 20)  # does not check for NULL


def fill(_audio: int, store: int) -> None:
    while True:
        os.write(store, bytes(1 << 20))


def fail(_audio: int, _store: int) -> None:
    raise KeyError("words of the file")


def claim(_audio: int, store: int) -> Reply:
    os.write(store, bytes(4000))
    return Reply(DECODED, Flaw.NONE, 1001, 0.0625)


def write_no_numbers(_audio: int, store: int) -> Reply:
    os.write(store, np.full(1000, np.nan, np.float32).tobytes())
    return Reply(DECODED, Flaw.NONE, 1000, 0.0625)


def name_no_cause(_audio: int, _store: int) -> Reply:
    return Reply(200)


def babble(_audio: int, store: int) -> Reply:
    """A reply and a byte."""
    (channel,) = (fd for fd in range(3, 32) if fd not in (_audio, store) and is_socket(fd))
    os.write(channel, b"?")
    return Reply(DECODED)


def is_socket(fd: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        return False


ACTIONS: dict[bytes, Callable[[int, int], Any]] = {  # most of them return no Reply
    action.__name__.encode(): action
    for action in (
        segfault, abort, leave, be_killed, sleep, spin, stop, eat, eat_natively, fill, fail, claim, write_no_numbers,
        name_no_cause, babble,
    )
}  # fmt: skip


def beg(_audio: int, _store: int, more: Callable[[], None]) -> Reply:
    """Asks for memory that no recording has."""
    while True:
        more()


def decode(audio: int, store: int, max_seconds: float, attempt: int, more: Callable[[], None]) -> Reply:
    name = os.pread(audio, 100, 0)
    if name == b"beg":
        return beg(audio, store, more)
    action = ACTIONS.get(name)
    return action(audio, store) if action else decode_fd(audio, store, max_seconds, attempt, more)


if __name__ == "__main__":
    main.main(decode)
