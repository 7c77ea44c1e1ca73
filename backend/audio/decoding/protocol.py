"""The protocol between the server and a decoder process, byte for byte: a job, a reply, and samples.

- A job is the longest accepted recording, the attempt, and two descriptors: the file to read and the memory to write
  samples to. No path is sent. Attempts number the sound tracks of a file in the order in which they are tried, from 0.
- A reply has a fixed length and holds numbers only. Nothing is unpickled, nothing is parsed.
- Samples are copied out of the shared memory first and validated in the copy, because the decoder process keeps its
  descriptor and could still write.
- The store grows by grants: a decoder process asks before it writes more samples than were granted, and the server
  counts the memory first. Both sides know how large each grant is.
- Silence takes no memory on either side, because hours of it fit into a file of kilobytes: it is a hole in the store.
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

from backend.audio.waveform import SAMPLE_BYTES, SAMPLE_RATE, Decoded, Flaw, Samples
from backend.process.machine.temporary_folder import temporary_folder

READY = b"R"  # sent once by a decoder process that has imported everything and is in its sandbox
READY_WITHOUT_SANDBOX = b"U"  # sent instead where the system has none
JOB_FORMAT = struct.Struct("<dB")
REPLY_FORMAT = struct.Struct("<BBQdHHB")

# A reply's outcome. Any other value is an index in CAUSES.
DECODED = 0xFF
INTERNAL_ERROR = 0xFE  # our own code failed; the decoder process has logged it
MORE = 0xFD  # no reply yet: the store is as large as was granted, and waits for GRANTED

FIRST_GRANT, _GRANT_STEP = 60 * SAMPLE_RATE, 1 << 22  # samples: those of a short recording, and 16 MiB
GRANTED, REFUSED = b"G", b"N"  # the answers to MORE; after the second the job ends, with any reply

_ALL_FLAWS = Flaw.TRUNCATED | Flaw.CANCELLED | Flaw.UNREAD
_MAX_NUMBER = 0xFFFF  # of tracks
_COPY_BLOCK = 1 << 20  # bytes of samples that are copied at a time
_ROUNDING_S = 1.0  # where joined files change their rate, each part's length is rounded to a sample


class CorruptReply(Exception):
    """A reply, or the samples that belong to it, are invalid."""


@dataclass(frozen=True)
class Reply:
    """How a job ended. `outcome`: DECODED, INTERNAL_ERROR, or an index in CAUSES. The rest is for DECODED only."""

    outcome: int
    flaws: Flaw = Flaw.NONE
    count: int = 0  # samples at 16 kHz
    duration_s: float = 0.0
    tracks: int = 1
    track: int = 1
    attempt: int = 0

    def pack(self) -> bytes:
        tracks, track = (min(number, _MAX_NUMBER) for number in (self.tracks, self.track))
        return REPLY_FORMAT.pack(self.outcome, self.flaws, self.count, self.duration_s, tracks, track, self.attempt)

    @classmethod
    def unpack(cls, message: bytes) -> Reply:
        if len(message) != REPLY_FORMAT.size:
            raise CorruptReply
        outcome, flaws, count, duration_s, tracks, track, attempt = REPLY_FORMAT.unpack(message)
        if outcome == DECODED and (flaws & ~_ALL_FLAWS or not 1 <= track <= tracks):
            raise CorruptReply
        return cls(outcome, Flaw(flaws & _ALL_FLAWS), count, duration_s, tracks, track, attempt)

    def decoded(self, samples: Samples) -> Decoded:
        """The recording that a reply and its samples are."""
        return Decoded(samples, self.duration_s, self.flaws, self.tracks, self.track, self.attempt)


def send_job(to: socket.socket, max_seconds: float, attempt: int, audio: int, store: int) -> None:
    socket.send_fds(to, [JOB_FORMAT.pack(max_seconds, attempt)], [audio, store])


def receive_job(source: socket.socket) -> tuple[float, int, int, int] | None:
    """(longest recording in seconds, attempt, the file's descriptor, the store's); None when the server has closed."""
    message, descriptors, _, _ = socket.recv_fds(source, JOB_FORMAT.size, 2)
    if len(message) != JOB_FORMAT.size or len(descriptors) != 2:
        return None
    max_seconds, attempt = JOB_FORMAT.unpack(message)
    return max_seconds, attempt, descriptors[0], descriptors[1]


@contextlib.contextmanager
def new_store() -> Iterator[int]:
    """The descriptor of anonymous memory for the samples of one job."""
    try:
        fd = os.memfd_create("samples", os.MFD_CLOEXEC)
    except (AttributeError, OSError):  # not Linux, or forbidden: an unnamed temporary file does the same
        with tempfile.TemporaryFile(dir=temporary_folder()) as file:
            fd = os.dup(file.fileno())
    try:
        yield fd
    finally:
        os.close(fd)


def next_grant(granted: int) -> int:
    """Samples that the store may have after the next grant."""
    return granted + min(granted, _GRANT_STEP)


def max_store_bytes(max_seconds: float) -> int:
    """Bytes that the samples of the longest accepted recording take."""
    return int((max_seconds + _ROUNDING_S) * SAMPLE_RATE) * SAMPLE_BYTES


def stored_s(store: int) -> float:
    """Seconds of sound in the store so far."""
    return os.fstat(store).st_size / (SAMPLE_BYTES * SAMPLE_RATE)


def write_samples(store: int, samples: Samples, at: int) -> None:
    """Write samples at byte `at` of the store. An all-silent block only extends the store, as a hole."""
    left = samples.data.cast("B")
    if not samples.any():
        os.ftruncate(store, max(at + left.nbytes, os.fstat(store).st_size))
        return
    while left:
        written = os.pwrite(store, left, at)
        left, at = left[written:], at + written


def validated_samples(store: int, reply: Reply, max_seconds: float) -> Samples:
    """The store's samples, moved out of it: `reply.count` of them, finite and within [-1, 1], or CorruptReply.

    They are copied from the end and the store is truncated block by block, so that memory holds a long recording once,
    plus one block.
    """
    size = reply.count * SAMPLE_BYTES
    if not 1 <= size <= max_store_bytes(max_seconds) or os.fstat(store).st_size != size:
        raise CorruptReply
    if not 0 < reply.duration_s <= max_seconds + _ROUNDING_S:  # false for NaN, too
        raise CorruptReply
    samples = np.zeros(reply.count, np.float32)  # pages that are never written take no memory
    memory = samples.data.cast("B")
    for begin in range((memory.nbytes - 1) // _COPY_BLOCK * _COPY_BLOCK, -1, -_COPY_BLOCK):
        block = memory[begin : begin + _COPY_BLOCK]
        if _has_data(store, begin, block.nbytes) and os.preadv(store, [block], begin) != block.nbytes:
            raise CorruptReply
        os.ftruncate(store, begin)
    loudest = max(float(samples.max()), -float(samples.min()))
    if not (math.isfinite(loudest) and loudest <= 1):
        raise CorruptReply
    return samples


def _has_data(store: int, begin: int, size: int) -> bool:
    """Whether the block is anything but a hole. True where the system cannot tell."""
    if not hasattr(os, "SEEK_DATA"):
        return True
    try:
        return os.lseek(store, begin, os.SEEK_DATA) < begin + size
    except OSError as error:
        return error.errno != errno.ENXIO  # ENXIO: no data from there on
