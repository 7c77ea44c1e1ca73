"""AudioTranscriptionLive through gRPC: ready, refusals, the end of a stream, and what is left behind: nothing."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace

import grpc
import numpy as np
import pytest
from live_client import LiveCall, audio, config

from backend.errors import LoadRefused
from backend.live import final_deadline
from backend.wire import backend_pb2 as pb

Code = grpc.StatusCode
NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, 32_000).astype(np.float32)


async def until(condition) -> None:
    late = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < late
        await asyncio.sleep(0.005)


def left_behind(service) -> tuple[int, int]:
    """Open streams, and jobs of the model."""
    scheduler = service.serving.scheduler
    return service.serving.live.streams, scheduler.waiting[0] + len(scheduler._started)


async def refusal_of(service, *requests: pb.TranscriptLiveRequest) -> tuple[Code, str]:
    async with LiveCall(service.stub) as call:
        for request in requests:
            await call.call.write(request)
        error = (await call.ended()).error
    assert error is not None
    assert left_behind(service)[0] == 0
    return error.code(), str(error.details())


async def test_text_leaves_and_one_final_result_ends_the_stream(service, loader) -> None:
    await service.load()
    async with LiveCall(service.stub) as call:
        await call.open()
        await call.send(NOISE)
        replies = await call.end()
    assert replies.error is None
    assert replies.all[0] == pb.TranscriptLiveResponse(ready=True)
    assert not any(reply.ready for reply in replies.all[1:])
    assert replies.text == replies.final.text != ""
    assert replies.final.duration == 2.0


@pytest.mark.parametrize(
    ("requests", "said"),
    [
        ([audio([0.0])], "must be its config"),
        ([pb.TranscriptLiveRequest()], "must be its config"),
        ([config(sample_rate=48_000)], "16000 Hz only"),
        ([config(sample_rate=-1)], "16000 Hz only"),
        ([config(language="tlhIngan")], "unknown language"),
        ([config(beam="5")], "and nothing else"),
        ([config(prompt="x" * 9000)], "longer than 8192 characters"),
        ([config(), config(sample_rate=8000)], "16000 Hz only"),
        ([config(), audio([0.0, float("nan")])], "finite numbers"),
        ([config(), audio([float("inf")])], "finite numbers"),
        ([audio([0.0] * (61 * 16_000))], "more than 60 s"),
        ([config(), audio([0.0] * (61 * 16_000))], "more than 60 s"),  # not parsed
        ([config(), audio([0.0] * (60 * 16_000 + 1))], "more than 60 s"),
    ],
)
async def test_a_bad_request_is_refused_with_its_remedy(service, requests, said: str) -> None:
    await service.load()
    code, details = await refusal_of(service, *requests)
    assert code == Code.INVALID_ARGUMENT
    assert said in details


async def test_a_client_that_closes_without_sending_anything_is_answered_ok(service) -> None:
    await service.load()
    async with LiveCall(service.stub) as call:
        replies = await call.end()
    assert (replies.all, replies.error) == ([], None)


async def test_odd_messages_and_spellings_are_taken(service) -> None:
    await service.load()
    async with LiveCall(service.stub) as call:
        await call.open(sample_rate=0, language="de-DE", timestamp_granularities="segment, characters", prompt="Hut")
        for samples in ([], [0.25], [7.0, -7.0], NOISE):
            await call.call.write(audio(samples))
        await call.call.write(pb.TranscriptLiveRequest())  # nothing in it
        replies = await call.end()
    assert replies.final.duration == pytest.approx(2.0 + 3 / 16_000)
    assert replies.final.language == "de"
    assert abs(np.concatenate([u.samples for u in service_utterances(service)])).max() <= 1.0


def service_utterances(service) -> list:
    return service.serving.live._resident.current().recognizer.utterances


async def test_ready_comes_and_sound_is_taken_while_the_model_hangs(service, loader, wav) -> None:
    """L8 and L9: the model thread is at one step all the time."""
    await service.load()
    loader.recognizer.gate = threading.Event()
    file = asyncio.ensure_future(service.transcribe(wav()))
    assert await asyncio.to_thread(loader.recognizer.entered.wait, 20)
    async with LiveCall(service.stub) as call:
        await asyncio.wait_for(call.open(), 5)
        await asyncio.wait_for(call.send(np.tile(NOISE, 10)), 10)  # 20 s
        loader.recognizer.gate.set()
        assert (await call.end()).final.duration == 20.0
    await file


async def test_a_stream_of_which_nothing_is_recognised_in_time_has_no_empty_text(
    service, loader, log, monkeypatch
) -> None:
    monkeypatch.setattr(final_deadline, "LIVE_FINAL_S", 0.2)
    await service.load()
    loader.recognizer.gate = threading.Event()
    async with LiveCall(service.stub) as call:
        await call.open()
        await call.send(NOISE)
        replies = await call.end()
    assert replies.error is not None
    assert replies.error.code() == Code.RESOURCE_EXHAUSTED
    assert "smaller model" in str(replies.error.details())
    assert [reply.ready for reply in replies.all] == [True]
    loader.recognizer.gate.set()
    assert (await log.after(2))[1]["finish"] == "NothingInTime"
    await until(lambda: left_behind(service) == (0, 0))


async def test_sound_that_comes_too_fast_ends_with_resource_exhausted(service, loader, log) -> None:
    """By the log: grpc's own client says INTERNAL where a call ends while it writes."""
    await service.load()
    loader.recognizer.gate = threading.Event()
    async with LiveCall(service.stub) as call:
        await call.open()
        await call.send(np.tile(NOISE, 100))
        line = (await log.after(2))[1]
    loader.recognizer.gate.set()
    assert (line["code"], line["finish"]) == ("RESOURCE_EXHAUSTED", "FallingBehind")
    assert 60 < line["behind_s"] < 80
    await until(lambda: left_behind(service) == (0, 0))


async def released(service, loader) -> None:
    """The weights have left memory; their next load waits for the loader's gate."""
    await service.serving.live._resident.unload(0)
    loader.recognizer, loader.gate = replace(loader.recognizer), threading.Event()


async def test_a_released_model_is_loaded_behind_ready(service, loader) -> None:
    """The gateway's microphone waits for ready, so ready does not wait for the weights, and no sound is lost."""
    await service.load()
    await released(service, loader)
    resident = service.serving.live._resident
    async with LiveCall(service.stub) as call:
        await call.open()
        await call.send(NOISE[:16_000])
        assert (resident.state, resident.usage.idle_s, loader.recognizer.utterances) == ("loading", 0, [])
        await call.send(NOISE[16_000:])
        loader.gate.set()
        replies = await call.end()
    assert replies.error is None
    assert replies.text == replies.final.text != ""
    np.testing.assert_array_equal(loader.recognizer.utterances[-1].samples, NOISE)
    assert loader.events.count("load demo") == 2


async def test_a_released_model_that_cannot_be_loaded_ends_its_streams(service, loader) -> None:
    await service.load()
    await released(service, loader)
    loader.refusals["demo"] = LoadRefused("no room")
    async with LiveCall(service.stub) as call:
        await call.open()
        loader.gate.set()
        error = (await call.ended()).error
    assert error is not None
    assert "no room" in str(error.details())
    assert left_behind(service) == (0, 0)


@pytest.mark.parametrize("is_released", [False, True])
@pytest.mark.parametrize(("kind", "options"), [("recognizer", ["forced_aligner:x", "task:align"]), ("aligner", [])])
async def test_a_model_that_aligns_known_texts_refuses_before_ready(
    service, loader, kind, options, is_released
) -> None:
    loader.kind = kind
    await service.load(Options=options)
    if is_released:
        await released(service, loader)
    async with LiveCall(service.stub) as call:
        await call.call.write(config())
        replies = await call.ended()
    assert replies.error is not None
    assert (replies.error.code(), replies.all) == (Code.UNIMPLEMENTED, [])


async def test_streams_beyond_the_limit_are_refused_before_ready(service) -> None:
    await service.load(Options=["live_max_streams:1"])
    async with LiveCall(service.stub) as first:
        await first.open()
        code, details = await refusal_of_second(service)
        assert (code, "live_max_streams" in details) == (Code.RESOURCE_EXHAUSTED, True)
        await first.end()
    async with LiveCall(service.stub) as second:
        await second.open()
        assert second.replies.all[0].ready


async def refusal_of_second(service) -> tuple[Code, str]:
    async with LiveCall(service.stub) as call:
        await call.call.write(config())
        error = (await call.ended()).error
    assert error is not None
    return error.code(), str(error.details())


async def test_a_second_config_starts_over_without_a_second_ready(service) -> None:
    await service.load()
    async with LiveCall(service.stub) as call:
        await call.open()
        await call.send(NOISE)
        await call.call.write(config(language="en"))
        await call.send(NOISE[:16_000])
        replies = await call.end()
    assert sum(reply.ready for reply in replies.all) == 1
    assert replies.final.duration == 1.0
    assert replies.text == replies.final.text


@pytest.mark.parametrize("how", ["free", "load", "stop"])
async def test_a_stream_ends_ok_when_its_model_goes(service, loader, how: str) -> None:
    await service.load()
    async with LiveCall(service.stub) as call:
        await call.open()
        await call.send(NOISE)
        if how == "free":
            await service.stub.Free(pb.HealthMessage())
        elif how == "load":
            await service.load(Model="other")
        else:
            await service.serving.stop(10)
        replies = await call.ended()
    assert replies.error is None
    assert replies.text == replies.final.text != ""


async def test_a_client_that_leaves_leaves_nothing_behind(service, loader, log) -> None:
    await service.load()
    loader.recognizer.gate = threading.Event()
    async with LiveCall(service.stub) as call:
        await call.open()
        await call.send(NOISE)
        assert await asyncio.to_thread(loader.recognizer.entered.wait, 20)
    loader.recognizer.gate.set()
    await until(lambda: left_behind(service) == (0, 0))
    assert (await log.after(2))[1]["finish"] == "Cancelled"


async def test_a_fault_of_the_model_is_a_status_of_its_stream_alone(service, loader) -> None:
    def fail(utterance) -> str:
        raise RuntimeError("no such host: /secret")

    await service.load()
    async with LiveCall(service.stub) as call, LiveCall(service.stub) as other:
        await call.open()
        await other.open()
        answer, loader.recognizer.answer = loader.recognizer.answer, fail
        await call.send(NOISE)
        replies = await call.end()
        loader.recognizer.answer = answer
        await other.send(NOISE)
        assert (await other.end()).final.text
    assert replies.error is not None
    assert replies.error.code() == Code.INTERNAL
    assert "secret" not in str(replies.error.details())
    assert not replies.finals


async def test_a_quiet_stream_is_ended_with_its_final_result(service, log) -> None:
    await service.load(Options=["live_quiet_seconds:1"])
    async with LiveCall(service.stub) as call, LiveCall(service.stub) as silent:
        await call.open()
        await call.send(NOISE)
        replies = await call.ended()
        assert (await silent.ended()).error is None  # it never sent anything
    assert replies.text == replies.final.text != ""
    lines = await log.after(3)
    assert [(line["code"], line["finish"]) for line in lines[1:]] == [("OK", "Quiet")] * 2
    assert lines[2]["audio_s"] + lines[1]["audio_s"] == 2.0


async def test_words_leave_behind_their_text_and_the_end_has_the_warnings(service, loader) -> None:
    await service.load(Options=["forced_aligner:x"])
    async with LiveCall(service.stub) as call:
        await call.open(timestamp_granularities="word")
        await call.send(NOISE)
        replies = await call.end()
        words = [word for reply in replies.all for word in reply.words]
        assert [word.text for word in words] == replies.final.text.split()
        assert words == [word for segment in replies.final.segments for word in segment.words]
    await service.load()  # no aligner
    async with LiveCall(service.stub) as call:
        await call.open(timestamp_granularities="word")
        await call.send(NOISE)
        assert not any(reply.words for reply in (await call.end()).all)
        assert "no aligner is configured" in dict(await call.call.trailing_metadata())["x-asr-warning"]


@pytest.mark.parametrize(("option", "text", "eou"), [
    ("sentence", "Yes.", True), ("sentence", "Yes", False), ("sentence", "好。", True),
    ("sentence", 'He said "no!"', True), ("pause", "Yes", True), ("off", "Yes.", False),
])  # fmt: skip
async def test_the_end_of_an_utterance_in_replies_about_files(service, loader, wav, option, text, eou) -> None:
    loader.recognizer.answer = lambda _: text
    await service.load(Options=[f"live_eou:{option}"])
    path = wav()
    assert (await service.transcribe(path)).eou == eou
    stream = service.stub.AudioTranscriptionStream(pb.TranscriptRequest(dst=str(path)), timeout=20)
    assert [reply async for reply in stream][-1].final_result.eou == eou
