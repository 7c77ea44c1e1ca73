"""AudioTranscription through gRPC: what the response has, and with which status a request is refused."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import grpc
import pytest

from backend.wire import backend_pb2 as pb

Code = grpc.StatusCode
State = pb.StatusResponse


async def test_the_response_has_all_that_the_gateway_renders(service, loader, wav) -> None:
    loader.recognizer.answer = lambda _: "Good morning. Turn on the light, please."
    await service.load(Options=["forced_aligner:x"])
    reply = await service.transcribe(wav(4.0), timestamp_granularities=["Word", "segment", "phoneme"], diarize=True)
    assert reply.text == "Good morning. Turn on the light, please."
    assert (reply.language, reply.duration, reply.eou) == ("en", 4.0, True)
    assert [(s.id, s.text, s.speaker) for s in reply.segments] == [
        (0, "Good morning.", ""),
        (1, "Turn on the light, please.", ""),
    ]
    assert [w.text for s in reply.segments for w in s.words] == reply.text.split()
    assert all(s.tokens for s in reply.segments)
    assert reply.segments[0].start == 0
    assert reply.segments[-1].end == 4_000_000_000
    edges = [t for s in reply.segments for w in s.words for t in (w.start, w.end)]
    assert edges == sorted(edges)
    assert all(w.end > w.start for s in reply.segments for w in s.words)


@pytest.mark.parametrize(("asked", "words"), [([], False), (["segment"], False), (["word"], True)])
async def test_words_are_returned_only_if_requested(service, wav, asked: list[str], words: bool) -> None:
    await service.load(Options=["forced_aligner:x"])
    reply = await service.transcribe(wav(), timestamp_granularities=asked)
    assert bool(reply.segments[0].words) == words
    assert 0 <= reply.segments[0].start < reply.segments[0].end <= 2_000_000_000


async def test_the_aligner_is_loaded_by_the_first_request_for_times_and_once(service, loader, wav) -> None:
    await service.load(Options=["forced_aligner:x"])
    await service.transcribe(wav())
    assert "align x" not in loader.events
    await asyncio.gather(*(service.transcribe(wav(), timestamp_granularities=["word"]) for _ in range(32)))
    assert loader.events.count("align x") == 1


async def test_replies_are_not_mixed_up_between_concurrent_requests(service, wav) -> None:
    await service.load()
    paths = [wav(1 + n / 10) for n in range(24)]
    alone = [(await service.transcribe(path)).text for path in paths]
    together = [reply.text for reply in await asyncio.gather(*(service.transcribe(path) for path in paths))]
    assert together == alone
    assert len(set(alone)) == len(alone)


async def test_silence_is_ok_and_empty(service, loader, wav) -> None:
    loader.recognizer.answer = lambda _: ""
    await service.load(Options=["forced_aligner:x"])
    reply = await service.transcribe(wav(3.0), timestamp_granularities=["word"])
    assert (reply.text, list(reply.segments), reply.duration) == ("", [], 3.0)


async def test_without_an_aligner_the_times_are_coarse_and_a_warning_says_so(service, wav) -> None:
    await service.load()
    call = service.stub.AudioTranscription(
        pb.TranscriptRequest(dst=str(wav()), timestamp_granularities=["word"]), timeout=20
    )
    reply = await call
    assert not reply.segments[0].words
    assert reply.segments[0].end > reply.segments[0].start
    assert "no aligner is configured" in dict(await call.trailing_metadata())["x-asr-warning"]


async def test_a_plain_request_carries_no_warning(service, wav) -> None:
    await service.load()
    call = service.stub.AudioTranscription(pb.TranscriptRequest(dst=str(wav())), timeout=20)
    await call
    assert "x-asr-warning" not in dict(await call.trailing_metadata())


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"language": "tlhIngan"}, "unknown language"),
        ({"translate": True}, "does not translate"),
        ({"prompt": "secret" * 2000}, "prompt is longer than 8192 characters: it has 12000;"),
        ({"prompt": "\U0010fffd" * 600}, "prompt is longer than 2048 tokens: it has 2400;"),
    ],
)
async def test_a_refusal_has_its_cause_and_repeats_no_client_text(service, wav, fields, said) -> None:
    await service.load()
    refusal = await service.refusal(wav(), **fields)
    assert refusal.code() == Code.INVALID_ARGUMENT
    assert said in refusal.details()
    assert "tlhIngan" not in refusal.details()
    assert "secret" not in refusal.details()


def unusable_paths(folder: Path) -> dict[str, str]:
    (folder / "other.wav").write_bytes(b"RIFF")
    (folder / "model not loaded").write_bytes(b"")
    (folder / "words.wav").write_text("These are words, not sound.")
    (folder / "evil.wav").write_text(f"#EXTM3U\n#EXTINF:10,\n{folder}/other.wav\n")
    os.mkfifo(folder / "pipe.wav")
    return {
        "missing": str(folder / "connection refused.wav"),
        "empty": str(folder / "model not loaded"),
        "text": str(folder / "words.wav"),
        "playlist": str(folder / "evil.wav"),
        "fifo": str(folder / "pipe.wav"),
        "folder": str(folder),
        "device": "/dev/zero",
        "url": "http://127.0.0.1:9/a.wav",
        "data": "data:audio/wav;base64,UklGRg==",
        "nothing": "",
    }


@pytest.mark.parametrize(
    "kind", ["missing", "empty", "text", "playlist", "fifo", "folder", "device", "url", "data", "nothing"]
)
async def test_a_path_that_is_no_recording_is_an_invalid_argument(service, tmp_path: Path, kind: str) -> None:
    await service.load()
    path = unusable_paths(tmp_path)[kind]
    refusal = await asyncio.wait_for(service.refusal(path), 5)
    assert refusal.code() == Code.INVALID_ARGUMENT
    for word in ("connection refused", "model not loaded", str(tmp_path), "http://", "base64"):
        assert word not in refusal.details()


async def test_a_foreign_identity_is_not_found(service, wav) -> None:
    await service.load()
    refusal = await service.refusal(wav(), ModelIdentity="other")
    assert refusal.code() == Code.NOT_FOUND
    assert refusal.details() == "model identity mismatch: loaded 'demo', requested 'other'"
    assert (await service.transcribe(wav(), ModelIdentity="demo")).text
    assert (await service.transcribe(wav(), ModelIdentity="")).text


async def test_without_a_model_a_transcription_is_a_failed_precondition_whatever_else_is_wrong(service) -> None:
    refusal = await service.refusal("/nowhere", language="tlhIngan", ModelIdentity="other")
    assert (refusal.code(), refusal.details()) == (Code.FAILED_PRECONDITION, "qwen-asr: model not loaded")
