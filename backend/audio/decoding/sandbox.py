"""The sandbox of a decoder process: a seccomp filter, after which the kernel refuses all that decoding does not need.

- Allowed are memory, time, its own end, and work on descriptors that are open already. Nothing can be opened,
  connected, started, traced or signalled: other files, sockets and processes are out of reach, whatever code runs here.
- Everything must have been imported before. What is refused gets EPERM and not the end of the process: libraries try
  things that they do not need.
- The log, descriptor 2, can be written and nothing else: it may be a file that is open for reading, too.
- `newfstatat` is how older C libraries ask for a descriptor's size. It tells whether a path exists, and its size.
- Linux on x86-64 and arm64. The numbers are those of the kernel's system call tables.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Iterable

_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_SET_MODE_FILTER, _FILTER_FLAG_TSYNC = 1, 1
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050001, 0x80000000  # _REFUSE: the call returns EPERM, error 1
_LOAD, _IF_EQUAL, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06  # classic BPF: ld abs, jeq, jset, ret
_AT_NUMBER, _AT_ARCHITECTURE, _AT_ARGUMENTS = 0, 4, 16  # in struct seccomp_data; an argument's lower half comes first
_MAP_ANONYMOUS, _AT_EMPTY_PATH = 0x20, 0x1000
_STDERR = 2

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column below, and the kernel's number
_SECCOMP = (317, 277)

# name: numbers on x86-64 and arm64
_ALLOWED: dict[str, tuple[int | None, int | None]] = {
    # memory and time
    "brk": (12, 214), "munmap": (11, 215), "mremap": (25, 216), "mprotect": (10, 226), "madvise": (28, 233),
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "clock_nanosleep": (230, 115), "nanosleep": (35, 101),
    "gettimeofday": (96, 169), "time": (201, None), "getrandom": (318, 278),
    # its own threads, signals and end
    "futex": (202, 98), "sched_yield": (24, 124), "sched_getaffinity": (204, 123), "set_robust_list": (273, 99),
    "rseq": (334, 293), "membarrier": (324, 283), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139), "sigaltstack": (131, 132), "restart_syscall": (219, 128), "getpid": (39, 172),
    "gettid": (186, 178), "getrusage": (98, 165), "exit": (60, 93), "exit_group": (231, 94),
    # open descriptors, the log's too
    "write": (1, 64), "close": (3, 57), "fstat": (5, 80), "writev": (20, 66),
    # the server's socket
    "sendto": (44, 206), "recvfrom": (45, 207), "recvmsg": (47, 212), "poll": (7, None), "ppoll": (271, 73),
    "select": (23, None), "pselect6": (270, 72),
}  # fmt: skip
_ALLOWED_BUT_ON_THE_LOG: dict[str, tuple[int, int]] = {  # the descriptor is the first argument
    "read": (0, 63), "readv": (19, 65), "pread64": (17, 67), "preadv": (295, 69), "preadv2": (327, 286),
    "pwrite64": (18, 68), "pwritev": (296, 70), "pwritev2": (328, 287), "lseek": (8, 62), "ftruncate": (77, 46),
}  # fmt: skip
_MMAP, _NEWFSTATAT, _PRLIMIT64, _KILL_CALL, _TGKILL = (9, 222), (262, 79), (302, 261), (62, 129), (234, 131)


def enter() -> bool:
    """Put this process into the sandbox for good. False where the system has none; then nothing has changed."""
    column, architecture = _ARCHITECTURES.get(os.uname().machine, (0, 0))
    if sys.platform != "linux" or not architecture or sys.maxsize < 1 << 32:
        return False
    code = b"".join(_program(column, architecture, os.getpid()))
    filters = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("@HP", len(code) // 8, ctypes.addressof(filters))  # struct sock_fprog
    libc = ctypes.CDLL(None)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):  # without it only root may set a filter
        return False
    return not libc.syscall(_SECCOMP[column], _SECCOMP_SET_MODE_FILTER, _FILTER_FLAG_TSYNC, program)


def _program(column: int, architecture: int, pid: int) -> Iterable[bytes]:
    """The filter in classic BPF: the calls one after the other, each with its own end."""
    yield _operation(_LOAD, _AT_ARCHITECTURE)
    yield _operation(_IF_EQUAL, architecture, 1, 0)
    yield _operation(_RETURN, _KILL)  # a 32-bit call has other numbers
    yield _operation(_LOAD, _AT_NUMBER)
    for numbers in _ALLOWED.values():
        if (number := numbers[column]) is not None:
            yield _operation(_IF_EQUAL, number, 0, 1)
            yield _operation(_RETURN, _ALLOW)
    for numbers in _ALLOWED_BUT_ON_THE_LOG.values():
        yield from _by_argument(numbers[column], 0, _IF_EQUAL, _STDERR, _REFUSE, _ALLOW)
    for numbers, argument, test, value in (
        (_MMAP, 3, _IF_ANY_BIT, _MAP_ANONYMOUS),
        (_NEWFSTATAT, 3, _IF_ANY_BIT, _AT_EMPTY_PATH),
        (_PRLIMIT64, 0, _IF_EQUAL, 0),  # 0: of the process itself
        (_KILL_CALL, 0, _IF_EQUAL, pid),
        (_TGKILL, 0, _IF_EQUAL, pid),  # abort
    ):
        yield from _by_argument(numbers[column], argument, test, value, _ALLOW, _REFUSE)
    yield _operation(_RETURN, _REFUSE)


def _by_argument(number: int, argument: int, test: int, value: int, if_so: int, if_not: int) -> Iterable[bytes]:
    yield _operation(_IF_EQUAL, number, 0, 4)
    yield _operation(_LOAD, _AT_ARGUMENTS + 8 * argument)
    yield _operation(test, value, 0, 1)
    yield _operation(_RETURN, if_so)
    yield _operation(_RETURN, if_not)


def _operation(code: int, value: int, if_so: int = 0, if_not: int = 0) -> bytes:
    """A struct sock_filter; the jumps skip so many operations."""
    return struct.pack("=HBBI", code, if_so, if_not, value)
