"""Whatever a decoder process sends is validated before it is used."""

from __future__ import annotations

import os
import re
import socket
import sys
from pathlib import Path

import numpy as np
import pytest

from backend.audio.decoding.protocol import (
    DECODED,
    REPLY_FORMAT,
    CorruptReply,
    Reply,
    max_store_bytes,
    new_store,
    receive_job,
    send_job,
    stored_s,
    validated_samples,
    write_samples,
)
from backend.audio.waveform import SAMPLE_RATE, Flaw


def samples_from(sound: np.ndarray, reply: Reply | None = None, max_seconds: float = 60) -> np.ndarray:
    with new_store() as store:
        os.write(store, sound.tobytes())
        return validated_samples(
            store, reply or Reply(DECODED, Flaw.NONE, sound.size, sound.size / SAMPLE_RATE), max_seconds
        )


@pytest.mark.parametrize("size", [1, 2, (1 << 18) - 1, 1 << 18, (1 << 18) + 1, 700_001])
def test_samples_are_moved_out_of_the_store_unchanged(size: int) -> None:
    sound = np.random.default_rng(1).uniform(-1, 1, size).astype(np.float32)
    with new_store() as store:
        os.write(store, sound.tobytes())
        assert stored_s(store) == size / SAMPLE_RATE
        np.testing.assert_array_equal(
            validated_samples(store, Reply(DECODED, Flaw.NONE, size, size / SAMPLE_RATE), 60), sound
        )
        assert stored_s(store) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="counts pages")
def test_silence_takes_no_memory_and_comes_back_among_sound() -> None:
    block = 1 << 18  # samples, a mebibyte
    sound = np.zeros(64 * block, np.float32)
    sound[10 * block + 5] = 0.5
    sound[50 * block : 51 * block] = 0.25
    with new_store() as store:
        for begin in range(0, sound.size, block):
            write_samples(store, sound[begin : begin + block], begin * sound.itemsize)
        assert os.fstat(store).st_size == sound.nbytes
        assert os.fstat(store).st_blocks * 512 <= 4 << 20
        before = resident()
        back = validated_samples(store, Reply(DECODED, Flaw.NONE, sound.size, sound.size / SAMPLE_RATE), 1200)
        assert resident() - before <= 16 << 20  # pages may be huge
    np.testing.assert_array_equal(back, sound)


def resident() -> int:
    """Bytes of anonymous memory that this process holds."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


@pytest.mark.parametrize(
    "reply",
    [
        Reply(DECODED, Flaw.NONE, 0, 1.0),
        Reply(DECODED, Flaw.NONE, 15_999, 1.0),
        Reply(DECODED, Flaw.NONE, 16_001, 1.0),
        Reply(DECODED, Flaw.NONE, 1 << 60, 1.0),
        Reply(DECODED, Flaw.NONE, 16_000, 0.0),
        Reply(DECODED, Flaw.NONE, 16_000, -1.0),
        Reply(DECODED, Flaw.NONE, 16_000, float("nan")),
        Reply(DECODED, Flaw.NONE, 16_000, float("inf")),
        Reply(DECODED, Flaw.NONE, 16_000, 100.0),
    ],
)
def test_a_reply_with_impossible_numbers_is_corrupt(reply: Reply) -> None:
    with pytest.raises(CorruptReply):
        samples_from(np.zeros(16_000, np.float32), reply)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1.5, -1.5])
def test_samples_that_are_not_finite_or_out_of_range_are_corrupt(bad: float) -> None:
    sound = np.zeros(16_000, np.float32)
    sound[7] = bad
    with pytest.raises(CorruptReply):
        samples_from(sound)


def test_more_than_the_longest_recording_is_corrupt() -> None:
    sound = np.zeros(max_store_bytes(1) // 4 + 1, np.float32)
    with pytest.raises(CorruptReply):
        samples_from(sound, max_seconds=1)
    assert samples_from(sound[1:], Reply(DECODED, Flaw.NONE, sound.size - 1, 1.0), max_seconds=1).size == sound.size - 1


@pytest.mark.parametrize("message", [b"", b"x", bytes(REPLY_FORMAT.size - 1), bytes(REPLY_FORMAT.size + 1)])
def test_a_reply_has_one_length(message: bytes) -> None:
    with pytest.raises(CorruptReply):
        Reply.unpack(message)
    reply = Reply(DECODED, Flaw.CANCELLED, 123, 4.5, 3, 2, 1)
    assert Reply.unpack(reply.pack()) == reply


def test_a_job_is_two_descriptors_of_the_same_files() -> None:
    here, there = socket.socketpair()
    with here, there, new_store() as first, new_store() as second:
        os.write(first, b"the file")
        send_job(here, 12.5, 3, first, second)
        job = receive_job(there)
        assert job is not None
        max_seconds, attempt, audio, store = job
        assert (max_seconds, attempt, os.pread(audio, 100, 0)) == (12.5, 3, b"the file")
        assert os.fstat(store) == os.fstat(second)
        os.close(audio)
        os.close(store)
        here.close()
        assert receive_job(there) is None
