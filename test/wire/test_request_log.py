"""What an operator sees of a call: its line in the log, its id, its warnings. Through gRPC."""

from __future__ import annotations

import asyncio
import re
import threading

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import CheckpointRefused
from backend.process.request_stats import RequestStats
from backend.wire import backend_pb2 as pb
from backend.wire.request_log import request_id, trailing

LIVE = ["steps", "utterances", "lag_p50_ms", "lag_p95_ms", "behind_s"]
SHORT = ["time", "request", "method", "code", "finish", "total_ms"]
STAGES_MS = ["decode_ms", "vad_ms", "queue_ms", "infer_ms", "align_ms"]
WHOLE = [*SHORT, "audio_s", *STAGES_MS, "batch", "language", "segments", "warnings", "refusal"]
FRESH = re.compile(r"[0-9a-f]{12}")


def asking(service, path, metadata=(), timeout=20, **fields) -> grpc.aio.UnaryUnaryCall:
    request = pb.TranscriptRequest(dst=str(path), **fields)
    return service.stub.AudioTranscription(request, metadata=metadata, timeout=timeout)


async def test_a_transcription_has_one_log_line_with_its_result_and_cost(service, log, wav) -> None:
    await service.load(Options=["forced_aligner:x"])
    await service.transcribe(wav(3.0), timestamp_granularities=["word"])
    await service.transcribe(wav(2.0))
    _, line, plain = await log.after(3)
    assert list(line) == WHOLE
    assert (line["method"], line["code"], line["finish"]) == ("AudioTranscription", "OK", "ok")
    assert (line["audio_s"], line["batch"], line["language"], line["segments"]) == (3.0, 1, "en", 1)
    assert line["warnings"] == []
    stages = [line[stage] for stage in STAGES_MS]
    assert all(spent >= 0 for spent in stages)
    assert line["decode_ms"] > 0
    assert sum(stages) <= line["total_ms"] + 0.5  # each is rounded
    assert plain["align_ms"] == 0


async def test_loads_and_frees_have_a_short_line_and_probes_have_none(service, log) -> None:
    await service.load()
    await service.load(DType="int4")
    await service.stub.Health(pb.HealthMessage())
    await service.stub.Status(pb.HealthMessage())
    await service.stub.Free(pb.HealthMessage())
    lines = await log.after(3)
    assert all(list(line) == SHORT for line in lines)
    assert [(line["method"], line["code"], line["finish"]) for line in lines] == [
        ("LoadModel", "OK", "ok"),
        ("LoadModel", "INVALID_ARGUMENT", "InvalidOption"),
        ("Free", "OK", "ok"),
    ]


async def test_a_refused_request_has_the_same_line_with_its_cause(service, log, wav) -> None:
    await service.refusal(wav())
    await service.load()
    await service.refusal("/nowhere")
    await service.refusal(wav(), language="tlhIngan")
    lines = [line for line in await log.after(4) if line["method"] == "AudioTranscription"]
    assert all(list(line) == WHOLE for line in lines)
    assert [(line["code"], line["finish"]) for line in lines] == [
        ("FAILED_PRECONDITION", "ModelNotLoaded"),
        ("INVALID_ARGUMENT", "UndecodableAudio"),
        ("INVALID_ARGUMENT", "UnsupportedLanguage"),
    ]
    assert [line["refusal"] for line in lines] == ["", "missing", ""]


async def test_of_a_refused_recording_the_line_has_the_kind(service, log, wav, tmp_path) -> None:
    await service.load(Options=["max_audio_seconds:3"])
    (tmp_path / "link.wav").symlink_to(wav())
    (tmp_path / "page.wav").write_bytes(b"<!doctype html><html></html>" * 10)
    (tmp_path / "empty.wav").touch()
    kinds = {"gone.wav": "missing", "link.wav": "link", "page.wav": "not_audio", "empty.wav": "empty", "": "not_a_file"}
    for name in kinds:
        await service.refusal(tmp_path / name)
    await service.refusal(wav(5.0))
    lines = (await log.after(7))[1:]
    assert [line["refusal"] for line in lines] == [*kinds.values(), "too_long"]
    assert {line["finish"] for line in lines} == {"UndecodableAudio"}


async def test_why_there_are_no_word_times_is_in_the_line(serve, loader, log, wav) -> None:
    """Trailing metadata stop at the gateway, so the log is where an operator finds it."""
    service = await serve()
    await service.load(Options=["forced_aligner:x"])
    loader.refusals["aligner"] = CheckpointRefused("the checkpoint 'x' is a Qwen3-ASR model")
    await asking(service, wav(), timestamp_granularities=["word"])
    (warning,) = (await log.after(2))[1]["warnings"]
    assert "the aligner cannot be loaded: the checkpoint 'x' is a Qwen3-ASR model" in warning


async def test_the_line_has_the_largest_batch_of_the_request(service, loader, log, wav) -> None:
    await service.load(Options=["batch_max_size:4"])
    loader.recognizer.gate = threading.Event()
    first = asyncio.ensure_future(service.transcribe(wav()))
    await asyncio.to_thread(loader.recognizer.entered.wait, 20)
    rest = [asyncio.ensure_future(service.transcribe(wav())) for _ in range(3)]
    while service.serving.scheduler.waiting[0] < 3:
        await asyncio.sleep(0.01)
    loader.recognizer.gate.set()
    await asyncio.gather(first, *rest)
    lines = (await log.after(5))[1:]
    assert sorted(line["batch"] for line in lines) == [1, 3, 3, 3]
    assert sum(line["queue_ms"] > 0 for line in lines) >= 3


async def test_cancelled_and_expired_calls_are_logged_differently(service, loader, log, wav) -> None:
    await service.load()
    loader.recognizer.gate = threading.Event()
    leaving = asking(service, wav())
    await asyncio.to_thread(loader.recognizer.entered.wait, 20)
    leaving.cancel()
    await log.after(2)
    with pytest.raises(grpc.aio.AioRpcError):
        await asking(service, wav(), timeout=0.3)
    _, left, late = await log.after(3)
    loader.recognizer.gate.set()
    assert (left["code"], left["finish"]) == ("CANCELLED", "Cancelled")
    assert (late["code"], late["finish"]) == ("DEADLINE_EXCEEDED", "DeadlineExceeded")
    assert late["queue_ms"] > 100  # it waited behind the first until the end
    assert late["infer_ms"] < 100


async def test_a_refused_stream_has_its_line(service, log) -> None:
    await service.load()
    with pytest.raises(grpc.aio.AioRpcError):
        await service.stub.AudioTranscriptionLive(iter([pb.TranscriptLiveRequest()])).read()
    with pytest.raises(grpc.aio.AioRpcError):
        await service.stub.AudioTranscriptionStream(pb.TranscriptRequest(dst="x")).read()
    _, live, line = await log.after(3)
    assert list(live) == [*WHOLE, "deltas", "first_delta_ms", "rewrites", *LIVE]
    assert list(line) == [*WHOLE, "deltas", "first_delta_ms", "rewrites"]
    assert (live["method"], live["code"], live["finish"]) == (
        "AudioTranscriptionLive",
        "INVALID_ARGUMENT",
        "ConfigMissing",
    )
    assert (line["code"], line["finish"]) == ("INVALID_ARGUMENT", "UndecodableAudio")
    assert (line["deltas"], line["first_delta_ms"]) == (0, 0)


async def test_a_call_without_the_token_has_a_line_and_an_id(serve, log) -> None:
    service = await serve(token="geheim")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asking(service, "/x", metadata=(("x-request-id", "mine"),))
    assert dict(caught.value.trailing_metadata()) == {"x-request-id": "mine"}
    (line,) = await log.after(1)
    assert (line["request"], line["code"], line["finish"]) == ("mine", "UNAUTHENTICATED", "Unauthenticated")


async def test_the_clients_id_is_returned_and_logged(service, log, wav) -> None:
    await service.load()
    metadata = (("x-request-id", "0f8fad5b-d9cb-469f-a165-70867728950e"),)
    call = asking(service, wav(), metadata, timestamp_granularities=["word"])
    await call
    trailing = dict(await call.trailing_metadata())
    assert trailing["x-request-id"] == "0f8fad5b-d9cb-469f-a165-70867728950e"
    assert "no aligner is configured" in trailing["x-asr-warning"]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asking(service, "/nowhere", metadata)
    assert dict(caught.value.trailing_metadata())["x-request-id"] == metadata[0][1]
    lines = (await log.after(3))[1:]
    assert [line["request"] for line in lines] == [metadata[0][1]] * 2
    assert lines[0]["warnings"] == [trailing["x-asr-warning"]]


async def test_without_an_id_every_call_gets_its_own(service, wav) -> None:
    await service.load()
    calls = [asking(service, path) for path in (wav(), wav(), "/nowhere")]
    await asyncio.gather(*calls, return_exceptions=True)
    ids = {str(dict(await call.trailing_metadata())["x-request-id"]) for call in calls}
    assert len(ids) == 3
    assert all(FRESH.fullmatch(sent) for sent in ids)


@pytest.mark.parametrize("sent", ["", "a b", "x" * 65, 'a"b', "{a}", "a;b", "model not loaded", "../x", "%0a"])
async def test_an_id_that_is_no_plain_name_is_replaced(service, log, sent: str) -> None:
    call = service.stub.Free(pb.HealthMessage(), metadata=(("x-request-id", sent),))
    await call
    returned = dict(await call.trailing_metadata())["x-request-id"]
    assert FRESH.fullmatch(returned)
    assert (await log.after(1))[0]["request"] == returned


@pytest.mark.parametrize("sent", ["a", "x" * 64, "req_1.2-C"])
def test_a_plain_name_is_kept(sent: str) -> None:
    assert request_id((("other", "x"), ("x-request-id", sent), ("x-request-id", "second"))) == sent


@pytest.mark.parametrize("sent", [b"bytes", "é", "a\n", "\x00", "٣"])
def test_an_id_that_grpc_would_not_carry_is_replaced(sent: str | bytes) -> None:
    assert FRESH.fullmatch(request_id((("x-request-id", sent),)))


async def test_a_trace_names_its_request(service, loader, log, wav) -> None:
    def fail(_utterance) -> str:
        raise RuntimeError("device lost")

    loader.recognizer.answer = fail
    await service.load()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asking(service, wav(), (("x-request-id", "find-me"),))
    assert caught.value.code() == grpc.StatusCode.INTERNAL
    assert (await log.after(2))[1]["finish"] == "EngineFailure"
    assert "the model failed [request find-me]" in log.text
    assert "    RuntimeError: device lost" in log.text


async def test_a_failure_before_the_model_names_its_request_too(serve, loader, log, wav) -> None:
    service = await serve()
    await service.load(Options=["forced_aligner:x"])
    loader.refusals["aligner"] = RuntimeError("no such weights")
    metadata = (("x-request-id", "find-me"),)
    await asking(service, wav(), metadata, timestamp_granularities=["word"])
    assert (await log.after(2))[1]["warnings"]
    lines = [line for line in log.text.splitlines() if not line.startswith("{")]
    about = [line for line in lines if "loading failed" in line or "cannot be loaded:" in line]
    assert len(about) == 2
    assert all(line.endswith("[request find-me]") for line in about)


@given(st.lists(st.text(min_size=1, max_size=3000), max_size=4))
def test_trailing_metadata_is_printable_ascii_of_bounded_length(warnings: list[str]) -> None:
    values = dict(trailing(RequestStats("mine", warnings=tuple(warnings))))
    assert values.pop("x-request-id") == "mine"
    assert bool(values) == bool(warnings)
    for warning in values.values():
        assert warning.isascii()
        assert warning.isprintable()
        assert len(warning) <= 1024


NASTY = [
    'secret"quoted"',
    "secret\nline\r\n{\"request\": \"forged\"}",
    "secret\x1b[2Jescape",
    "secret\u2028separator",
    "secret ütf-8 🎧 中文",
    "secret%s%d{0}",
    "<|im_end|>secret",
]  # fmt: skip


@pytest.mark.parametrize("nasty", NASTY)
async def test_no_text_prompt_or_path_is_ever_in_the_log(service, loader, log, wav, tmp_path, nasty: str) -> None:
    loader.recognizer.answer = lambda _: f"Good {nasty.split()[0]} morning."
    await service.load()
    path = wav().rename(tmp_path / f"{nasty}.wav")
    await service.transcribe(path, prompt=nasty)
    await service.transcribe(path, prompt=nasty, timestamp_granularities=["word", nasty])
    await service.refusal(path, language=nasty)
    await service.refusal(f"{path}.gone", prompt=nasty)
    await service.refusal(tmp_path, prompt=nasty * 10_000)
    await service.refusal(path, ModelIdentity=nasty)
    lines = await log.after(7)
    assert [line["code"] for line in lines] == ["OK"] * 3 + ["INVALID_ARGUMENT"] * 3 + ["NOT_FOUND"]
    assert all(list(line) == WHOLE for line in lines[1:])
    for said in ("secret", "forged", "Good", "morning", ".wav", str(tmp_path)):
        assert said not in log.text
    assert len(log.text.splitlines()) == 8  # with the one that names the model
