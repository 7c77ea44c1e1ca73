"""A decoder process that was taken over: it tries to reach files, the network and other processes.

Each attempt is a sample of its answer: 1 where it succeeded, 0 where the kernel refused it with EPERM, and 0.5 where it
failed otherwise. `ATTEMPTS` has their names. The file of the job holds the name of a file to write.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path.cwd()))  # a DecoderPool starts its processes in the repository's root

import numpy as np

from backend.audio.decoding import main
from backend.audio.decoding.protocol import DECODED, Reply
from backend.audio.waveform import SAMPLE_RATE, Flaw

libc = ctypes.CDLL(None, use_errno=True)
parent = os.getppid()
target = ""  # a file that does not exist yet
_IS_X86 = os.uname().machine == "x86_64"
_IO_URING_SETUP, _PIDFD_OPEN, _OPENAT2, _CLONE3 = 425, 434, 437, 435  # the same on both architectures
_PTRACE, _PROCESS_VM_READV, _BPF = (101, 310, 321) if _IS_X86 else (117, 270, 280)
_PTRACE_ATTACH, _F_SETSIG = 16, 10


def call(number: int, *arguments: object) -> None:
    """A system call without the C library's help. Raises OSError."""
    if libc.syscall(ctypes.c_long(number), *arguments) < 0:
        raise OSError(ctypes.get_errno(), "refused")


def checked(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")


def fork() -> None:
    if os.fork() == 0:
        os._exit(0)


def connect(family: int, address: object) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as made:
        made.connect(address)  # type: ignore[arg-type]


def signalled_by_a_descriptor() -> None:
    fcntl.fcntl(0, fcntl.F_SETOWN, parent)
    fcntl.fcntl(0, _F_SETSIG, signal.SIGKILL)


ATTEMPTS: dict[str, Callable[[], object]] = {
    "open a file": lambda: os.open("/etc/passwd", os.O_RDONLY),
    "open its own code": lambda: os.open(__file__, os.O_RDONLY),
    "read the server's environment": lambda: os.open(f"/proc/{parent}/environ", os.O_RDONLY),
    "read the server's memory": lambda: os.open(f"/proc/{parent}/mem", os.O_RDONLY),
    "open by openat2": lambda: call(_OPENAT2, -100, b"/etc/passwd", b"\0" * 24, 24),
    "open the upload for writing": lambda: os.open("/proc/self/fd/3", os.O_RDWR),
    "write a file": lambda: os.open(target, os.O_WRONLY | os.O_CREAT, 0o600),
    "make a folder": lambda: Path(target).mkdir(),
    "make a link": lambda: Path(target).symlink_to("/etc/passwd"),
    "delete a file": lambda: Path("/no/such/file").unlink(),
    "change a file's mode": lambda: Path("/no/such/file").chmod(0o777),
    "list a folder": lambda: list(Path("/").iterdir()),
    "ask for a path": lambda: Path("/etc/passwd").stat(),
    "connect by IPv4": lambda: connect(socket.AF_INET, ("127.0.0.1", 9)),
    "connect by IPv6": lambda: connect(socket.AF_INET6, ("::1", 9)),
    "connect to a local socket": lambda: connect(socket.AF_UNIX, "/run/systemd/notify"),
    "open netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0),
    "open a raw socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0),
    "make a pair of sockets": socket.socketpair,
    "signal the server": lambda: os.kill(parent, 0),
    "signal the server's group": lambda: os.kill(0, 0),
    "signal everything": lambda: os.kill(-1, 0),
    "signal by a descriptor": signalled_by_a_descriptor,
    "name the server by a descriptor": lambda: call(_PIDFD_OPEN, parent, 0),
    "trace the server": lambda: call(_PTRACE, _PTRACE_ATTACH, parent, None, None),
    "read the server's memory by address": lambda: call(_PROCESS_VM_READV, parent, None, 0, None, 0, 0),
    "limit the server": lambda: resource.prlimit(parent, resource.RLIMIT_NOFILE),
    "fork": fork,
    "start a process by clone3": lambda: call(_CLONE3, b"\0" * 64, 64),
    "start a program": lambda: os.execv("/bin/true", ["true"]),
    "make memory with a name": lambda: os.memfd_create("x"),
    "submit work to the kernel": lambda: call(_IO_URING_SETUP, 1, b"\0" * 120),
    "load a program into the kernel": lambda: call(_BPF, 0, b"\0" * 64, 64),
    "leave its namespaces": lambda: checked(libc.unshare(0x10000000)),
    "mount": lambda: checked(libc.mount(b"none", b"/mnt", b"tmpfs", 0, None)),
    "change its user": lambda: os.setuid(os.getuid()),
    "become inspectable": lambda: checked(libc.prctl(4, 1, 0, 0, 0)),
    "read the log": lambda: os.read(2, 1),
    "empty the log": lambda: os.ftruncate(2, 0),
    "move in the log": lambda: os.lseek(2, 0, os.SEEK_SET),
    "copy the log's descriptor": lambda: os.dup(2),
}


def outcome(attempt: Callable[[], object]) -> float:
    try:
        attempt()
    except OSError as error:
        return 0.0 if error.errno == errno.EPERM else 0.5
    return 1.0


def decode(audio: int, store: int, _max_seconds: float, _attempt: int, _more: Callable[[], None]) -> Reply:
    global target
    target = os.pread(audio, 4096, 0).decode()
    samples = np.array([outcome(attempt) for attempt in ATTEMPTS.values()], np.float32)
    os.pwrite(store, samples.tobytes(), 0)
    return Reply(DECODED, Flaw.NONE, samples.size, samples.size / SAMPLE_RATE)


if __name__ == "__main__":
    main.main(decode)
