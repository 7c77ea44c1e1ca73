"""How calls end when the process has been told to leave: by a status of ours, never UNAVAILABLE."""

from __future__ import annotations

import asyncio
import threading

import grpc
import pytest
from grpc_service import started

from backend import server
from backend.wire import backend_pb2 as pb

STOPPING = (grpc.StatusCode.RESOURCE_EXHAUSTED, "qwen-asr: the backend is stopping; send the request again")
LOAD = pb.ModelOptions(Model="demo", Options=["vad:off"])


@pytest.fixture
async def leaving(service):
    """A stub, and the drain of its server."""
    return service.stub, service.serving.drain


async def told(call) -> tuple[grpc.StatusCode, str | None]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(call, 10)
    return caught.value.code(), caught.value.details()


async def running(stub, loader, path) -> grpc.aio.UnaryUnaryCall:
    """A transcription that has reached the model and stays there."""
    await stub.LoadModel(LOAD)
    loader.recognizer.gate = threading.Event()
    call = stub.AudioTranscription(pb.TranscriptRequest(dst=str(path)))
    asyncio.ensure_future(call.code())  # noqa: RUF006 - sends it off; the call itself is kept
    assert await asyncio.to_thread(loader.recognizer.entered.wait, 20)
    return call


async def test_running_calls_finish_and_new_calls_are_refused(leaving, loader, wav) -> None:
    stub, drain = leaving
    call = await running(stub, loader, wav())
    draining = asyncio.ensure_future(drain.drain(20))
    await asyncio.sleep(0)
    live, stream = stub.AudioTranscriptionLive(), stub.AudioTranscriptionStream(pb.TranscriptRequest())
    for late in (stub.AudioTranscription(pb.TranscriptRequest(dst=str(wav()))), stub.LoadModel(LOAD)):
        assert await told(late) == STOPPING
    for late in (live, stream):
        assert await told(late.read()) == STOPPING
    assert (await stub.Health(pb.HealthMessage())).message == b"OK"
    assert not draining.done()
    loader.recognizer.gate.set()
    assert (await call).text
    assert await draining  # the statuses may still be on their way


async def test_a_call_that_exceeds_the_grace_period_is_cancelled(leaving, loader, wav) -> None:
    stub, drain = leaving
    call = await running(stub, loader, wav())
    await drain.drain(0.1)
    assert await told(call) == STOPPING
    loader.recognizer.gate.set()


async def test_cancelling_the_calls_ends_the_drain(leaving, loader, wav) -> None:
    stub, drain = leaving
    call = await running(stub, loader, wav())
    draining = asyncio.ensure_future(drain.drain(60))
    await asyncio.sleep(0)
    drain.cancel_calls()
    await asyncio.wait_for(draining, 10)
    assert await told(call) == STOPPING
    loader.recognizer.gate.set()


async def test_a_load_is_not_waited_for(leaving, loader) -> None:
    stub, drain = leaving
    loader.gate = threading.Event()
    loading = stub.LoadModel(LOAD)
    while "load demo" not in loader.events:
        await asyncio.sleep(0.001)
    await asyncio.wait_for(drain.drain(60), 10)
    assert await told(loading) == STOPPING
    loader.gate.set()


HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"


async def test_without_calls_no_connection_delays_the_end(loader, decoder_pool, monkeypatch) -> None:
    """A peer that is connected and answers nothing: a close that waits for statuses would wait for it for ever."""
    monkeypatch.setattr(server, "_CLOSE_S", 3600.0)
    async with started(loader, decoder_pool) as serving:
        reader, writer = await asyncio.open_connection("127.0.0.1", serving.port)
        writer.write(HTTP2_PREFACE)
        assert await reader.read(9)  # the server's settings: it has the connection
        await asyncio.wait_for(serving.stop(3600.0), 20)
        writer.close()


async def test_a_client_that_cancels_during_the_drain_sees_cancelled(leaving, loader, wav) -> None:
    stub, drain = leaving
    call = await running(stub, loader, wav())
    draining = asyncio.ensure_future(drain.drain(60))
    call.cancel()
    await asyncio.wait_for(draining, 10)
    assert await call.code() == grpc.StatusCode.CANCELLED
    loader.recognizer.gate.set()
