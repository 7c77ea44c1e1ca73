"""Nothing that a child says is believed before it was looked at."""

from __future__ import annotations

import os
import re
import socket
import sys
from pathlib import Path

import numpy as np
import pytest

from backend.audio.decoding.protocol import (
    ANSWER,
    DECODED,
    Answer,
    Forged,
    length_s,
    longest_store,
    new_store,
    received_job,
    send_job,
    taken,
    write,
)
from backend.audio.waveform import SAMPLE_RATE


def taken_from(sound: np.ndarray, answer: Answer | None = None, max_seconds: float = 60) -> np.ndarray:
    with new_store() as store:
        os.write(store, sound.tobytes())
        return taken(store, answer or Answer(DECODED, False, sound.size, sound.size / SAMPLE_RATE), max_seconds)


@pytest.mark.parametrize("size", [1, 2, (1 << 18) - 1, 1 << 18, (1 << 18) + 1, 700_001])
def test_samples_come_back_as_they_were_and_leave_the_store(size: int) -> None:
    sound = np.random.default_rng(1).uniform(-1, 1, size).astype(np.float32)
    with new_store() as store:
        os.write(store, sound.tobytes())
        assert length_s(store) == size / SAMPLE_RATE
        np.testing.assert_array_equal(taken(store, Answer(DECODED, False, size, size / SAMPLE_RATE), 60), sound)
        assert length_s(store) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="counts pages")
def test_silence_takes_no_memory_and_comes_back_among_sound() -> None:
    block = 1 << 18  # samples, a mebibyte
    sound = np.zeros(64 * block, np.float32)
    sound[10 * block + 5] = 0.5
    sound[50 * block : 51 * block] = 0.25
    with new_store() as store:
        for begin in range(0, sound.size, block):
            write(store, sound[begin : begin + block], begin * sound.itemsize)
        assert os.fstat(store).st_size == sound.nbytes
        assert os.fstat(store).st_blocks * 512 <= 4 << 20
        before = resident()
        back = taken(store, Answer(DECODED, False, sound.size, sound.size / SAMPLE_RATE), 1200)
        assert resident() - before <= 16 << 20  # pages may be huge
    np.testing.assert_array_equal(back, sound)


def resident() -> int:
    """Bytes of anonymous memory that this process holds."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


@pytest.mark.parametrize(
    "answer",
    [
        Answer(DECODED, False, 0, 1.0),
        Answer(DECODED, False, 15_999, 1.0),
        Answer(DECODED, False, 16_001, 1.0),
        Answer(DECODED, False, 1 << 60, 1.0),
        Answer(DECODED, False, 16_000, 0.0),
        Answer(DECODED, False, 16_000, -1.0),
        Answer(DECODED, False, 16_000, float("nan")),
        Answer(DECODED, False, 16_000, float("inf")),
        Answer(DECODED, False, 16_000, 100.0),
    ],
)
def test_numbers_that_cannot_be_true_are_refused(answer: Answer) -> None:
    with pytest.raises(Forged):
        taken_from(np.zeros(16_000, np.float32), answer)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1.5, -1.5])
def test_samples_that_are_none_are_refused(bad: float) -> None:
    sound = np.zeros(16_000, np.float32)
    sound[7] = bad
    with pytest.raises(Forged):
        taken_from(sound)


def test_more_than_the_longest_recording_is_refused() -> None:
    sound = np.zeros(longest_store(1) // 4 + 1, np.float32)
    with pytest.raises(Forged):
        taken_from(sound, max_seconds=1)
    assert taken_from(sound[1:], Answer(DECODED, False, sound.size - 1, 1.0), max_seconds=1).size == sound.size - 1


@pytest.mark.parametrize("message", [b"", b"x", bytes(ANSWER.size - 1), bytes(ANSWER.size + 1)])
def test_an_answer_has_one_length(message: bytes) -> None:
    with pytest.raises(Forged):
        Answer.unpacked(message)
    answer = Answer(DECODED, True, 123, 4.5)
    assert Answer.unpacked(answer.packed()) == answer


def test_a_job_is_two_descriptors_of_the_same_files() -> None:
    here, there = socket.socketpair()
    with here, there, new_store() as first, new_store() as second:
        os.write(first, b"the file")
        send_job(here, 12.5, first, second)
        job = received_job(there)
        assert job is not None
        max_seconds, audio, store = job
        assert (max_seconds, os.pread(audio, 100, 0)) == (12.5, b"the file")
        assert os.fstat(store) == os.fstat(second)
        os.close(audio)
        os.close(store)
        here.close()
        assert received_job(there) is None
