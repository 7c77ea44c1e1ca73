"""AudioTranscriptionStream through gRPC: deltas, then one final result; statuses, cancels, its log line and metrics."""

from __future__ import annotations

import asyncio
import threading
import time
import urllib.request
from collections.abc import AsyncIterable, Awaitable, Callable
from contextlib import suppress

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from speaking import Answer, SpeakingRecognizer, answering

from backend.options.load_options import LoadOptions
from backend.serving.protocols import Utterance
from backend.wire import backend_pb2 as pb

Code = grpc.StatusCode
TEXT = "Good morning. Please turn on the light, and close the door behind you when you leave."


@pytest.fixture
def recognizer(monkeypatch, loader) -> SpeakingRecognizer:
    """What the loader loads: it says TEXT, a token every 5 ms."""
    recognizer = SpeakingRecognizer(lambda _: answering(TEXT), step_s=0.005)

    def load(options: LoadOptions) -> SpeakingRecognizer:
        return recognizer

    monkeypatch.setattr(loader, "load_recognizer", load)
    return recognizer


def streaming(service, path, metadata=None, timeout=20, **fields) -> grpc.aio.UnaryStreamCall:
    request = pb.TranscriptRequest(dst=str(path), stream=True, **fields)
    return service.stub.AudioTranscriptionStream(request, metadata=metadata, timeout=timeout)


async def collect(replies: AsyncIterable[pb.TranscriptStreamResponse], into: list[pb.TranscriptStreamResponse]) -> None:
    """What comes before an error, too."""
    async for reply in replies:
        into.append(reply)  # noqa: PERF401 - of a list comprehension nothing would be left


async def test_deltas_come_before_one_final_result_and_are_its_text(service, recognizer, wav) -> None:
    await service.load()
    replies = [reply async for reply in streaming(service, wav(5.0))]
    *deltas, final = replies
    assert "".join(reply.delta for reply in deltas) == final.final_result.text == TEXT
    assert all(reply.delta and not reply.HasField("final_result") for reply in deltas)
    assert len(deltas) > 1
    assert final.delta == ""
    assert final.final_result == await service.transcribe(wav(5.0))


async def test_the_first_delta_comes_while_the_answer_is_decoded(service, recognizer, wav) -> None:
    recognizer.gate = threading.Event()
    await service.load()
    replies = aiter(streaming(service, wav(5.0)))
    told = ""
    while told != TEXT.removesuffix(" leave."):
        told += (await asyncio.wait_for(anext(replies), 10)).delta
    recognizer.gate.set()
    assert told + "".join([reply.delta async for reply in replies]) == TEXT


async def test_silence_has_no_delta_and_an_empty_final_result(service, recognizer, wav) -> None:
    recognizer.answer = lambda _: answering("")
    await service.load()
    (only,) = [reply async for reply in streaming(service, wav(3.0))]
    assert only == pb.TranscriptStreamResponse(final_result=pb.TranscriptResult(duration=3.0))


async def test_deltas_do_not_wait_for_the_aligner_and_the_final_result_has_the_words(
    service, recognizer, loader, wav
) -> None:
    loader.gate = threading.Event()  # of the aligner's load
    await service.load(Options=["forced_aligner:x"])
    replies = aiter(streaming(service, wav(5.0), timestamp_granularities=["word"]))
    told = ""
    while told != TEXT:
        told += (await asyncio.wait_for(anext(replies), 10)).delta
    loader.gate.set()
    (final,) = [reply async for reply in replies]
    assert [word.text for segment in final.final_result.segments for word in segment.words] == TEXT.split()


@pytest.mark.parametrize(
    ("fields", "code", "said"),
    [
        ({"language": "tlhIngan"}, Code.INVALID_ARGUMENT, "unknown language"),
        ({"translate": True}, Code.INVALID_ARGUMENT, "does not translate"),
        ({"dst": "/nowhere"}, Code.INVALID_ARGUMENT, "cannot read the audio"),
        ({"ModelIdentity": "another"}, Code.NOT_FOUND, "model identity mismatch"),
        ({"prompt": "x" * (1 << 20)}, Code.INVALID_ARGUMENT, "larger than"),
    ],
)
async def test_a_refusal_is_a_status_and_no_reply(service, recognizer, wav, fields, code, said) -> None:
    await service.load()
    request = pb.TranscriptRequest(**{"dst": str(wav()), **fields})
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.stub.AudioTranscriptionStream(request, timeout=20).read()
    assert (caught.value.code(), said in str(caught.value.details())) == (code, True)


async def test_without_a_model_a_stream_is_a_failed_precondition(service, wav) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await streaming(service, wav()).read()
    assert (caught.value.code(), caught.value.details()) == (Code.FAILED_PRECONDITION, "qwen-asr: model not loaded")


async def test_a_fault_in_mid_stream_is_a_status_without_a_final_result(service, recognizer, wav) -> None:
    steps = iter(range(10**6))

    def fail() -> None:
        if next(steps) >= 12:
            raise RuntimeError("connection refused: /secret")

    recognizer.before_step = fail
    recognizer.step_s = 0.02
    await service.load()
    replies: list[pb.TranscriptStreamResponse] = []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await collect(streaming(service, wav(5.0)), replies)
    assert caught.value.code() == Code.INTERNAL
    assert "secret" not in str(caught.value.details())
    assert replies
    assert TEXT.startswith("".join(reply.delta for reply in replies))
    assert not any(reply.HasField("final_result") for reply in replies)


Ended = tuple[Code, list[pb.TranscriptStreamResponse]]


@pytest.fixture
def play(service, recognizer, wav) -> Callable[..., Awaitable[list[Ended]]]:
    """`await play([(5.0, "whole")])`: the ends of streams that run together; what becomes of each its prompt says."""

    def answer(utterance: Utterance) -> Answer:
        if utterance.prompt == "early":
            raise RuntimeError("boom")
        if utterance.prompt == "loop":
            return answering("It goes on" + " and on" * 40, finished=False, looped=True)
        return answering("" if utterance.prompt == "empty" else TEXT)

    def fail_late() -> None:
        for session in recognizer.sessions[-1:]:
            if any(row[0].prompt == "late" and session._said[id(row[0])] >= 12 for row in session.rows):
                raise RuntimeError("boom")

    async def play(streams: list[tuple[float, str]]) -> list[Ended]:
        recognizer.answer, recognizer.before_step, recognizer.step_s = answer, fail_late, 0.001
        recognizer.sessions.clear()  # one that failed keeps its rows
        await service.load()
        return await asyncio.gather(*(end_of(streaming(service, wav(size), prompt=fate)) for size, fate in streams))

    return play


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.sampled_from([2.0, 16.0, 40.0]), st.sampled_from(["whole", "empty", "loop", "early", "late"])),
        min_size=1,
        max_size=4,
    )
)
async def test_a_stream_ends_with_one_final_result_or_with_a_status_and_none(play, streams) -> None:
    """S5."""
    for (_, fate), (code, replies) in zip(streams, await play(streams), strict=True):
        finals = [reply.HasField("final_result") for reply in replies]
        if fate in ("early", "late"):
            assert (code, any(finals)) == (Code.INTERNAL, False)
            continue
        assert (code, finals) == (Code.OK, [False] * (len(finals) - 1) + [True])
        told = "".join(reply.delta for reply in replies)
        assert told == replies[-1].final_result.text
        assert bool(told) == (fate != "empty")


async def end_of(call: grpc.aio.UnaryStreamCall) -> Ended:
    """The status, and all that came before it."""
    replies: list[pb.TranscriptStreamResponse] = []
    with suppress(grpc.aio.AioRpcError):
        await collect(call, replies)
    return await call.code(), replies


async def until(condition) -> None:
    late_s = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < late_s
        await asyncio.sleep(0.005)


async def test_a_client_that_cancels_frees_the_model_at_the_next_step(service, recognizer, log, wav) -> None:
    recognizer.answer = lambda _: answering(TEXT * 50)
    await service.load()
    call = streaming(service, wav(5.0))
    await call.read()
    call.cancel()
    await until(lambda: not any(map(len, recognizer.sessions)))
    line = (await log.after(2))[1]
    assert (line["code"], line["finish"]) == ("CANCELLED", "Cancelled")
    assert line["deltas"] >= 1


async def test_a_deadline_ends_a_stream(service, recognizer, wav) -> None:
    recognizer.answer = lambda _: answering(TEXT * 50)
    await service.load()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await collect(streaming(service, wav(5.0), timeout=0.4), [])
    assert caught.value.code() == Code.DEADLINE_EXCEEDED
    await until(lambda: not any(map(len, recognizer.sessions)))


async def test_a_stop_ends_a_running_stream_with_the_backends_own_status(service, recognizer, wav) -> None:
    recognizer.answer = lambda _: answering(TEXT * 50)
    await service.load()
    replies = aiter(streaming(service, wav(5.0)))
    await anext(replies)
    await service.serving.drain.drain(0.05)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await collect(replies, [])
    assert (caught.value.code(), "stopping" in str(caught.value.details())) == (Code.RESOURCE_EXHAUSTED, True)


async def test_a_running_stream_survives_free(service, recognizer, wav) -> None:
    await service.load()
    replies = aiter(streaming(service, wav(5.0)))
    first = (await anext(replies)).delta
    assert (await service.stub.Free(pb.HealthMessage(), timeout=5)).success
    assert first + "".join([reply.delta async for reply in replies]) == TEXT


async def test_a_stream_has_its_id_and_its_warnings_at_its_end(service, recognizer, wav) -> None:
    await service.load()
    call = streaming(service, wav(5.0), metadata=(("x-request-id", "mine-1"),), timestamp_granularities=["word"])
    async for _ in call:
        pass
    trailing = dict(await call.trailing_metadata())
    assert trailing["x-request-id"] == "mine-1"
    assert "no aligner is configured" in trailing["x-asr-warning"]


async def test_a_stream_has_the_log_line_of_a_transcription_and_three_more_keys(service, recognizer, log, wav) -> None:
    await service.load()
    await service.transcribe(wav(5.0))
    replies = [reply async for reply in streaming(service, wav(5.0))]
    _, unary, line = await log.after(3)
    assert [*line][len(unary) :] == ["deltas", "first_delta_ms", "rewrites"]
    assert line["method"] == "AudioTranscriptionStream"
    assert (line["deltas"], line["rewrites"], line["finish"]) == (len(replies) - 1, 0, "ok")
    assert 0 < line["first_delta_ms"] < line["total_ms"]
    assert {key: line[key] for key in ("audio_s", "language", "segments", "warnings")} == {
        "audio_s": 5.0, "language": "en", "segments": 2, "warnings": []
    }  # fmt: skip


async def test_a_rewrite_is_in_the_log_line_the_warnings_and_the_metrics(serve, recognizer, log, wav) -> None:
    def said(utterance: Utterance) -> tuple:
        if utterance.samples.size > 6 * 16_000:
            return answering(TEXT, finished=False)
        return answering(TEXT.replace("morning", "evening"))

    recognizer.answer = said
    service = await serve(metrics="127.0.0.1:0")
    await service.load()
    call = streaming(service, wav(9.0))
    *deltas, final = [reply async for reply in call]
    assert "".join(reply.delta for reply in deltas) == final.final_result.text
    assert final.final_result.text.startswith("Good morning. Please turn on")
    assert "1 passage was heard again after a part" in dict(await call.trailing_metadata())["x-asr-warning"]
    line = (await log.after(2))[1]
    assert line["rewrites"] == 1
    metrics = await asyncio.to_thread(scraped, service)
    assert "qwen_asr_rewrites_total 1.0" in metrics
    assert 'qwen_asr_first_delta_seconds_count{method="AudioTranscriptionStream"} 1.0' in metrics
    assert 'qwen_asr_first_delta_seconds_bucket{le="+Inf",method="AudioTranscriptionStream"} 1.0' in metrics


def scraped(service) -> str:
    url = f"http://127.0.0.1:{service.serving.listener.port}/metrics"
    with urllib.request.urlopen(url, timeout=10) as response:
        return response.read().decode()
