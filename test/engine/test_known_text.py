"""Known texts on the demo models, through gRPC: where their lines begin, and what the gateway shows of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from backend.wire import backend_pb2 as pb
from devtools.eval.medley import lines_of, music
from devtools.server_process import DEMO_ALIGNER, DEMO_MODEL, ServerProcess
from devtools.transcribe.formats import FORMATS

RATE = 16_000
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server():
    with ServerProcess() as server:
        yield server


def load(server, model: Path, *options: str) -> None:
    server.load(pb.ModelOptions(Model=str(model), DType="float32", Options=options))


def align(server, path: Path, text: str, language: str = "") -> tuple[pb.TranscriptResult, str]:
    """The reply, and its warning."""
    request = pb.TranscriptRequest(dst=str(path), prompt=text, language=language)
    result, call = server.stub.AudioTranscription.with_call(request, timeout=120, metadata=server.metadata)
    return result, dict(call.trailing_metadata()).get("x-asr-warning", "")


def errors_ms(result: pb.TranscriptResult, starts_s: list[float]) -> np.ndarray:
    return np.abs([segment.start / 1e6 - 1000 * s for segment, s in zip(result.segments, starts_s, strict=True)])


def test_lines_of_three_minutes_begin_where_they_are_sung_whatever_lies_between(server, recordings, tmp_path) -> None:
    """A minute of music in the middle, two verses that the text has not, and a line that is not sung."""
    load(server, DEMO_MODEL, "task:align", f"forced_aligner:{DEMO_ALIGNER}")
    truth = json.loads((recordings / "long.json").read_text())
    samples, _ = soundfile.read(recordings / "long.flac", dtype="float32")
    lines = lines_of(truth["text"], [tuple(word) for word in truth["words"]])
    middle = round((lines[25].start_s - 0.2) * RATE)
    soundfile.write(tmp_path / "song.wav", np.concatenate([samples[:middle], music(60.0), samples[middle:]]), RATE)
    kept = [*lines[:10], *lines[18:30], *lines[38:]]
    starts_s = [line.start_s + (60 if line.start_s * RATE > middle else 0) for line in kept]
    texts = [line.text for line in kept]
    texts[5] = "Green morning five please eight hello nine."
    result, warning = align(server, tmp_path / "song.wav", "\n".join(texts))
    assert [segment.text for segment in result.segments] == texts
    assert warning == "1 line is not heard (line 6); its times are between its neighbours"
    errors = errors_ms(result, starts_s)
    assert errors.mean() <= 60
    assert np.percentile(errors, 95) <= 150
    assert all(segment.words and segment.tokens for segment in result.segments)
    for name in ("srt", "vtt", "lrc"):
        assert [line for line in texts if line not in FORMATS[name](result)] == []


def test_chinese_lines(server, recordings) -> None:
    load(server, DEMO_MODEL, "task:align", f"forced_aligner:{DEMO_ALIGNER}")
    truth = json.loads((recordings / "chinese.json").read_text())
    result, warning = align(server, recordings / "chinese.wav", "[副歌]\n一二三四五\n六七八九零")
    assert [segment.text for segment in result.segments] == ["一二三四五", "六七八九零"]
    assert errors_ms(result, [truth["words"][0][1], truth["words"][5][1]]).max() <= 60
    assert (result.language, warning) == ("zh", "")


def test_an_aligner_alone(server, recordings) -> None:
    load(server, DEMO_ALIGNER)
    truth = json.loads((recordings / "demo.json").read_text())
    lines = lines_of(truth["text"], [tuple(word) for word in truth["words"]])
    result, warning = align(server, recordings / "demo.wav", "\n".join(line.text for line in lines), "en")
    assert [segment.text for segment in result.segments] == [line.text for line in lines]
    assert errors_ms(result, [line.start_s for line in lines]).max() <= 150
    assert warning == ""
