"""Opens a path as a regular file of bounded size, or raises UndecodableAudio. No other module opens a client's file.

A file is opened once for decoding, and all work is on the descriptor: the gateway may delete the file meanwhile. Before
it waits for a decoder it is checked in the same way, so that a waiting request holds no descriptor.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from backend.audio.decoding.causes import EMPTY_FILE, LINK, MISSING, NOT_A_FILE, TOO_LARGE, UNREADABLE
from backend.errors import UndecodableAudio

_CAUSE_OF = {  # errors of os.open; any other (no descriptors left, for example) is not the file's fault
    errno.ENOENT: MISSING,
    errno.ENOTDIR: MISSING,
    errno.ENAMETOOLONG: MISSING,  # a data: URL
    errno.EACCES: UNREADABLE,
    errno.EPERM: UNREADABLE,
    errno.EIO: UNREADABLE,
    errno.ESTALE: UNREADABLE,
    errno.ELOOP: LINK,
    errno.ENXIO: NOT_A_FILE,  # a socket
    errno.ENODEV: NOT_A_FILE,
}
_MAX_FILE_BYTES = 1 << 32  # 6 h of 48 kHz 16-bit stereo, and the most that a WAV header can state


def check(path: str) -> None:
    """Raises UndecodableAudio where `open_regular_file` would. A file system that does not answer blocks it."""
    with open_regular_file(path):
        pass


@contextlib.contextmanager
def open_regular_file(path: str) -> Iterator[int]:
    """The file's descriptor. Does not block on a FIFO and does not follow a link in the last component."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY)
    except ValueError:  # a NUL byte, or characters that no file name can hold
        raise UndecodableAudio(MISSING) from None
    except OSError as error:
        if error.errno not in _CAUSE_OF:
            raise
        raise UndecodableAudio(_CAUSE_OF[error.errno]) from None  # the error's own text names the path
    try:
        status = os.fstat(fd)
        for is_refused, cause in (
            (not stat.S_ISREG(status.st_mode), NOT_A_FILE),
            (status.st_size == 0, EMPTY_FILE),
            (status.st_size > _MAX_FILE_BYTES, TOO_LARGE),
        ):
            if is_refused:
                raise UndecodableAudio(cause)
        yield fd
    finally:
        os.close(fd)
