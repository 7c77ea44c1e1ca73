"""Files as people have them, through gRPC: each has its words where they belong, and a warning where one is due."""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest
from written_files import (
    chunk,
    encoded,
    format_chunk,
    id3,
    ogg_pages,
    packets_of,
    pcm,
    plain,
    riff,
    with_edits,
    with_gap,
    words,
)

from backend.pipeline.sound_tracks import CANCELLED, NO_SPEECH, TRACKS, TRUNCATED, UNREAD
from backend.wire import backend_pb2 as pb

WORDS = words()  # one sentence, from 0.25 to 5.93 s
LONG = np.concatenate([WORDS, WORDS])
FMT, DATA = format_chunk(), chunk(b"data", pcm(WORDS))
OGG = plain(LONG, 48_000, "OGG", "OPUS")
OGG_HALF = len(list(ogg_pages(OGG))) // 2
MP3 = plain(WORDS, container="MP3", codec="MPEG_LAYER_III")
SILENT = WORDS * 0

Transcribe = Callable[[bytes], Awaitable[tuple[pb.TranscriptResult, str]]]


@pytest.fixture
def transcribe(service, tmp_path: Path) -> Transcribe:
    """The reply and its warnings, with the real detector of speech."""

    async def run(content: bytes) -> tuple[pb.TranscriptResult, str]:
        await service.stub.LoadModel(pb.ModelOptions(Model="demo"), timeout=20)
        (tmp_path / "upload").write_bytes(content)
        call = service.stub.AudioTranscription(pb.TranscriptRequest(dst=str(tmp_path / "upload")), timeout=20)
        return await call, dict(await call.trailing_metadata()).get("x-asr-warning", "")

    return run


ONE, TWO = [(0.25, 5.93)], [(0.25, 5.93), (6.25, 11.93)]
INVERTED = np.stack([WORDS, -WORDS], axis=1)
FILES: dict[str, tuple[bytes, list[tuple[float, float]], str]] = {
    "phase inverted": (encoded("ipod", [INVERTED]), ONE, CANCELLED),
    "first track silent": (encoded("ipod", [SILENT, WORDS]), ONE, TRACKS.format(count=2, number=2)),
    "default in the middle": (
        encoded("matroska", [WORDS / 9, WORDS, WORDS / 9], default=1), ONE, TRACKS.format(count=3, number=2),
    ),
    "ogg with a gap": (with_gap(OGG, OGG_HALF, 96_000), [(0.25, 5.93), (8.25, 13.93)], ""),
    "joined wav": (plain(WORDS) + plain(WORDS, 8_000, codec="ULAW"), TWO, ""),
    "joined m4a": (encoded("ipod", [WORDS]) + encoded("ipod", [WORDS], "alac"), TWO, ""),
    "two data chunks": (riff(FMT, DATA, DATA), TWO, ""),
    "camcorder": (packets_of(encoded("mpegts", [WORDS], "ac3", rate=48_000), before=4), ONE, ""),
    "ts from mid-packet": (encoded("mpegts", [WORDS])[100:], ONE, ""),
    "rf64 of a pipe": (
        riff(chunk(b"ds64", bytes(28)), FMT, chunk(b"data", pcm(WORDS), 0xFFFFFFFF), kind=b"RF64", size=0xFFFFFFFF),
        ONE, "",
    ),
    "padding behind id3": (id3(100) + bytes(20_000) + MP3, ONE, ""),
    "id3 before riff": (id3(100) + plain(WORDS), ONE, ""),
    "g723": (encoded("wav", [WORDS], "g723_1", rate=8_000), ONE, ""),
    "empty edit": (
        with_edits(encoded("ipod", [WORDS]), (5000, -1), (6000, 1024)), [(5.25, 10.93)], "",
    ),
    "mxf": (encoded("mxf_opatom", [WORDS], "pcm_s16le", rate=48_000), ONE, ""),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
async def test_a_file_has_its_words_where_they_belong(transcribe, name: str) -> None:
    content, expected, warning = FILES[name]
    reply, warned = await transcribe(content)
    assert warned == warning
    assert reply.segments[0].start / 1e9 == pytest.approx(expected[0][0], abs=0.3)
    assert reply.segments[-1].end / 1e9 == pytest.approx(expected[-1][1], abs=0.4)
    assert reply.duration == pytest.approx(expected[-1][1] + 0.07, abs=0.15)


@pytest.mark.parametrize(
    ("content", "warning"),
    [
        (plain(SILENT), ""),
        (plain(np.sin(np.arange(96_000) / 6).astype(np.float32) / 3), NO_SPEECH),
        (encoded("ipod", [SILENT, SILENT]), TRACKS.format(count=2, number=1)),
        (encoded("ipod", [SILENT]) + np.random.default_rng(1).bytes(60_000), UNREAD),
        (encoded("webm", [SILENT], "libopus")[:-500], TRUNCATED),
    ],
    ids=["silence", "music", "tracks", "unread", "cut"],
)
async def test_an_empty_answer_is_a_claim(transcribe, content: bytes, warning: str) -> None:
    reply, warned = await transcribe(content)
    assert (reply.text, list(reply.segments), warned) == ("", [], warning)


async def test_g729_is_read(transcribe) -> None:
    """No encoder of it is at hand: a few frames of its bits."""
    sound = np.random.default_rng(1).bytes(100 * 10)
    wave = struct.pack("<HHIIHHH", 0x83, 1, 8000, 1000, 10, 0, 0)
    reply, _ = await transcribe(riff(chunk(b"fmt ", wave), chunk(b"data", sound)))
    assert reply.duration == pytest.approx(1)
