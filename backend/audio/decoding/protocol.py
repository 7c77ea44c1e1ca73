"""What the server and a child that decodes hand each other, byte for byte: a job, an answer, and samples.

- A job is three things: the longest recording that is accepted, and two descriptors, of the file to read and of the
  memory to write samples to. No path crosses.
- An answer has a fixed length and holds numbers only. Nothing is unpickled, nothing is parsed.
- Samples are taken as a copy of one's own, and checked there: the child keeps its descriptor and may write on.
- Silence costs nothing on either side: hours of it fit into a file of kilobytes. It is a hole in the store.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import socket
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from backend.audio.waveform import SAMPLE_RATE, Samples

READY = b"R"  # a child's first word: it has everything imported
JOB = struct.Struct("<d")
ANSWER = struct.Struct("<BBQd")

DECODED = 0xFF  # else the answer's first number is the place of a cause in CAUSES,
FAULT = 0xFE  # or says that our own code failed; the child has logged it

_BLOCK = 1 << 20  # bytes of samples that are copied at a time
_SAMPLE = np.dtype(np.float32).itemsize
_ROUNDING_S = 1.0  # where joined files change their rate, each part's length is rounded to a sample


class Forged(Exception):
    """What the other side sent cannot be true."""


@dataclass(frozen=True)
class Answer:
    """How a job ended. `outcome`: DECODED, FAULT, or the place of a cause in CAUSES. The rest belongs to DECODED."""

    outcome: int
    truncated: bool = False
    count: int = 0  # samples at 16 kHz
    duration_s: float = 0.0

    def packed(self) -> bytes:
        return ANSWER.pack(self.outcome, self.truncated, self.count, self.duration_s)

    @classmethod
    def unpacked(cls, message: bytes) -> Answer:
        if len(message) != ANSWER.size:
            raise Forged
        outcome, truncated, count, duration_s = ANSWER.unpack(message)
        return cls(outcome, bool(truncated), count, duration_s)


def send_job(to: socket.socket, max_seconds: float, audio: int, store: int) -> None:
    socket.send_fds(to, [JOB.pack(max_seconds)], [audio, store])


def received_job(source: socket.socket) -> tuple[float, int, int] | None:
    """(longest recording in seconds, the file, the store), or None when the other side has gone."""
    message, descriptors, _, _ = socket.recv_fds(source, JOB.size, 2)
    if len(message) != JOB.size or len(descriptors) != 2:
        return None
    return JOB.unpack(message)[0], descriptors[0], descriptors[1]


@contextlib.contextmanager
def new_store() -> Iterator[int]:
    """The descriptor of memory without a name, for the samples of one job."""
    try:
        fd = os.memfd_create("samples", os.MFD_CLOEXEC)
    except (AttributeError, OSError):  # not Linux, or forbidden: a file without a name does the same
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    try:
        yield fd
    finally:
        os.close(fd)


def longest_store(max_seconds: float) -> int:
    """Bytes that a recording of so many seconds may take."""
    return int((max_seconds + _ROUNDING_S) * SAMPLE_RATE) * _SAMPLE


def length_s(store: int) -> float:
    """Seconds of sound that the store has so far."""
    return os.fstat(store).st_size / (_SAMPLE * SAMPLE_RATE)


def write(store: int, samples: Samples, at: int) -> None:
    """Samples into the store, `at` bytes from its start; what is silent throughout only makes it longer."""
    left = samples.data.cast("B")
    if not samples.any():
        os.ftruncate(store, max(at + left.nbytes, os.fstat(store).st_size))
        return
    while left:
        written = os.pwrite(store, left, at)
        left, at = left[written:], at + written


def taken(store: int, answer: Answer, max_seconds: float) -> Samples:
    """The store's samples, which leave it. Raises Forged unless they are what `answer` says and what samples are.

    They are taken from the end, and the store shrinks meanwhile: hours of sound are in memory once, and one block.
    """
    size = answer.count * _SAMPLE
    if not 1 <= size <= longest_store(max_seconds) or os.fstat(store).st_size != size:
        raise Forged
    if not 0 < answer.duration_s <= max_seconds + _ROUNDING_S:  # false for nan, too
        raise Forged
    samples = np.zeros(answer.count, np.float32)  # pages that nobody writes to take no memory
    memory = samples.data.cast("B")
    for begin in range((memory.nbytes - 1) // _BLOCK * _BLOCK, -1, -_BLOCK):
        block = memory[begin : begin + _BLOCK]
        if _holds_sound(store, begin, block.nbytes) and os.preadv(store, [block], begin) != block.nbytes:
            raise Forged
        os.ftruncate(store, begin)
    loudest = max(float(samples.max()), -float(samples.min()))
    if not (math.isfinite(loudest) and loudest <= 1):
        raise Forged
    return samples


def _holds_sound(store: int, begin: int, size: int) -> bool:
    """Whether there is anything but a hole. True where the system cannot say."""
    if not hasattr(os, "SEEK_DATA"):
        return True
    try:
        return os.lseek(store, begin, os.SEEK_DATA) < begin + size
    except OSError as error:
        return error.errno != errno.ENXIO  # no data from there on
