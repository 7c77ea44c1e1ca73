"""A path becomes the descriptor of a regular file of bounded size, or UndecodableAudio. The only place that opens one.

What is decoded is opened once, and all work is on the descriptor: the gateway may delete the file meanwhile. It is
checked in the same way before its turn comes, so that no descriptor is kept by who waits.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from backend.audio.decoding.causes import EMPTY_FILE, MISSING, NOT_A_FILE, TOO_LARGE, UNREADABLE
from backend.errors import UndecodableAudio

_CAUSE_OF = {  # what os.open says; anything else (no descriptors left, say) is not the file's fault
    errno.ENOENT: MISSING,
    errno.ENOTDIR: MISSING,
    errno.ENAMETOOLONG: MISSING,  # a data: string
    errno.EACCES: UNREADABLE,
    errno.EPERM: UNREADABLE,
    errno.EIO: UNREADABLE,
    errno.ESTALE: UNREADABLE,
    errno.ELOOP: NOT_A_FILE,  # a link
    errno.ENXIO: NOT_A_FILE,  # a socket
    errno.ENODEV: NOT_A_FILE,
}
_LARGEST_FILE = 1 << 32  # bytes: 6 h of 48 kHz 16 bit stereo, and as much as a WAV header can state


def check(path: str) -> None:
    """Raises UndecodableAudio where `opened` would. Waits for nothing but the file system, which may be for ever."""
    with opened(path):
        pass


@contextlib.contextmanager
def opened(path: str) -> Iterator[int]:
    """The file's descriptor. Never waits (a FIFO would), never follows a link in the last place."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY)
    except ValueError:  # a NUL in it, or what no file name can hold
        raise UndecodableAudio(MISSING) from None
    except OSError as error:
        if error.errno not in _CAUSE_OF:
            raise
        raise UndecodableAudio(_CAUSE_OF[error.errno]) from None  # the error's own text names the path
    try:
        status = os.fstat(fd)
        for refused, cause in (
            (not stat.S_ISREG(status.st_mode), NOT_A_FILE),
            (status.st_size == 0, EMPTY_FILE),
            (status.st_size > _LARGEST_FILE, TOO_LARGE),
        ):
            if refused:
                raise UndecodableAudio(cause)
        yield fd
    finally:
        os.close(fd)
