"""WAV of every kind and with every size that a pipe, a crash or a careless writer leaves."""

from __future__ import annotations

import os
import struct

import numpy as np
import pytest
from written_files import RATE, chunk, format_chunk, pcm, plain, riff, words

from backend.audio.containers.parts import split
from backend.audio.waveform import Flaw

WORDS = words()
SOUND, BIG = pcm(WORDS), pcm(WORDS, ">")
FMT, UNKNOWN = format_chunk(), 0xFFFFFFFF
DATA = chunk(b"data", SOUND)


def rf64(kind: bytes, data_bytes: int | None, stated: int = UNKNOWN) -> bytes:
    ds64 = b"" if data_bytes is None else chunk(b"ds64", struct.pack("<QQQI", 0, data_bytes, 0, 0))
    return riff(ds64, FMT, chunk(b"data", SOUND, stated), kind=kind, size=UNKNOWN)


ONCE = {
    "RF64, ds64 of zeros": rf64(b"RF64", 0),
    "RF64, ds64 of ones": rf64(b"RF64", (1 << 64) - 1),
    "RF64, right": rf64(b"RF64", len(SOUND)),
    "RF64, no ds64": rf64(b"RF64", None, 0),
    "BW64, ds64 of zeros": rf64(b"BW64", 0),
    "BW64, size 0": rf64(b"BW64", 0, 0),
    "RIFX": riff(format_chunk(">"), chunk(b"data", BIG, order=">"), kind=b"RIFX", order=">"),
    "RIFX of a pipe": riff(format_chunk(">"), chunk(b"data", BIG, UNKNOWN), kind=b"RIFX", size=UNKNOWN),
    "RIFX of a pipe, 0": riff(format_chunk(">"), chunk(b"data", BIG, 0), kind=b"RIFX", size=0),
    "odd chunk": riff(FMT, chunk(b"LIST", b"INFOabc"), DATA),
    "odd chunk without its pad byte": riff(FMT, chunk(b"LIST", b"INFOabc", padded=False), DATA),
    "odd unknown chunk without its pad byte": riff(FMT, chunk(b"Xyz1", b"abc", padded=False), DATA),
    "LIST after data": riff(FMT, DATA, chunk(b"LIST", b"INFO" + b"x" * 101)),
    "unknown chunk after data": riff(FMT, DATA, chunk(b"Xyz1", b"x" * 10_001)),
    "stale size": riff(FMT, chunk(b"data", SOUND, 20_000), size=20_036),
    "stale size after LIST": riff(FMT, chunk(b"LIST", b"INFOx"), chunk(b"data", SOUND, 64_000), size=64_050),
    "size 0": riff(FMT, chunk(b"data", SOUND, 0)),
    "size 2^31": riff(FMT, chunk(b"data", SOUND, 0x7FFFFFFF), size=0x80000024),
    "empty data first": riff(FMT, chunk(b"data", b""), chunk(b"LIST", b"INFO"), DATA),
    "zeros behind": plain(WORDS) + bytes(8192),
    "an ID3v1 tag behind": plain(WORDS) + b"TAG" + b"x" * 125,
}
TWICE = {
    "two data chunks": riff(FMT, DATA, DATA),
    "LIST between": riff(FMT, DATA, chunk(b"LIST", b"INFOabc"), DATA, chunk(b"LIST", b"INFO")),
    "RIFX": riff(format_chunk(">"), *[chunk(b"data", BIG, order=">")] * 2, kind=b"RIFX", order=">"),
    "joined pipes": riff(FMT, chunk(b"data", SOUND, UNKNOWN), size=UNKNOWN) * 2,
    "a pipe and a file of another rate": riff(FMT, chunk(b"data", SOUND, 0), size=0) + plain(WORDS, 48_000),
}


@pytest.mark.parametrize(("content", "times"), [(ONCE[n], 1) for n in ONCE] + [(TWICE[n], 2) for n in TWICE],
                         ids=[*ONCE, *TWICE])  # fmt: skip
def test_all_sound_of_a_wav_is_read_and_nothing_else(decoded, content: bytes, times: int) -> None:
    found = decoded(content)
    assert (found.samples.size, found.flaws) == (6 * RATE * times, Flaw.NONE)
    for part in found.samples.reshape(times, -1):
        np.testing.assert_allclose(part, WORDS, atol=5e-3)


@pytest.mark.parametrize("stated", [0, (1 << 64) - 1])
def test_a_w64_from_a_pipe_states_no_size(decoded, stated: int) -> None:
    w64 = plain(WORDS, container="W64")
    at = w64.index(b"data") + 16
    found = decoded(w64[:16] + struct.pack("<Q", stated) + w64[24:at] + struct.pack("<Q", stated) + w64[at + 8 :])
    assert (found.samples.size, found.flaws) == (6 * RATE, Flaw.NONE)


def test_an_ordinary_wav_is_given_to_the_decoder_as_it_is(tmp_path) -> None:
    for content in (plain(WORDS), riff(FMT, DATA, chunk(b"LIST", b"INFOabcd"))):
        (tmp_path / "a.wav").write_bytes(content)
        fd = os.open(tmp_path / "a.wav", os.O_RDONLY)
        assert [part.pieces for part in split(fd)] == [None]
        os.close(fd)


def test_a_wav_that_ends_early_is_reported(decoded) -> None:
    for content in (plain(WORDS)[:100_000], riff(FMT, DATA, DATA)[:-50_000]):
        assert decoded(content).flaws == Flaw.TRUNCATED
