"""What a gateway with several replicas relies on, through gRPC: hints of refusals, and models that come and go."""

from __future__ import annotations

import asyncio
import gc

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_service import serving

from backend.pipeline.admission import Admission
from backend.serving.scheduler import Scheduler
from backend.wire import backend_pb2 as pb
from test.conftest import FakeLoader, FakeRecognizer

LOAD = pb.ModelOptions(Model="demo", Options=["vad:off", "idle_unload_seconds:3600"])


class FreshLoader(FakeLoader):
    """Makes a new recogniser at each load, as the real one does, and keeps none."""

    def load_recognizer(self, options) -> FakeRecognizer:
        super().load_recognizer(options)
        return FakeRecognizer()


@pytest.mark.parametrize(("waiting_s", "after"), [(0.0, "2"), (600.0, "20")])
@pytest.mark.parametrize("method", ["AudioTranscription", "AudioTranscriptionStream"])
async def test_a_replica_that_is_full_says_when_to_try_again(
    serve, wav, monkeypatch, waiting_s: float, after: str, method: str
) -> None:
    """From the audio that waits and the best speed so far: here a minute in two seconds."""
    service = await serve(admission=Admission(max_requests=0))
    assert (await service.stub.LoadModel(LOAD)).success
    service.serving.scheduler._throughput.add_compute(2.0, 1.0)
    service.serving.scheduler._throughput.add_audio(60.0)
    service.serving.scheduler._throughput.end_window()
    monkeypatch.setattr(Scheduler, "waiting", (20, waiting_s))
    call = getattr(service.stub, method)(pb.TranscriptRequest(dst=str(wav())))
    assert await call.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    trailing = dict(await call.trailing_metadata())
    assert trailing["retry-after"] == after
    assert trailing["x-request-id"]


async def test_a_replica_that_stops_says_so_and_other_refusals_have_no_hint(service, wav) -> None:
    hints = []
    assert (await service.stub.LoadModel(LOAD)).success
    for number in range(2):
        call = service.stub.AudioTranscription(pb.TranscriptRequest(dst=str(wav()), language="klingon"))
        assert await call.code() == (grpc.StatusCode.RESOURCE_EXHAUSTED if number else grpc.StatusCode.INVALID_ARGUMENT)
        hints.append(dict(await call.trailing_metadata()).get("retry-after"))
        await service.serving.drain.drain(0)
    assert hints == [None, "5"]


async def test_32_requests_at_once_into_an_unloaded_model_load_it_once(decoder_pool, wav) -> None:
    loader = FreshLoader()
    path = str(wav())
    async with serving(loader, decoder_pool) as service:
        stub, resident = service.stub, service.serving.resident
        assert (await stub.LoadModel(LOAD)).success
        expected = (await stub.AudioTranscription(pb.TranscriptRequest(dst=path))).text
        await resident.unload(0.0)
        gc.collect()
        status = await stub.Status(pb.HealthMessage())
        assert (status.state, status.memory.total) == (pb.StatusResponse.READY, 0)
        health = await health_pb2_grpc.HealthStub(service.channel).Check(health_pb2.HealthCheckRequest())
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        replies = await asyncio.gather(*(stub.AudioTranscription(pb.TranscriptRequest(dst=path)) for _ in range(32)))
    assert {reply.text for reply in replies} == {expected}
    assert loader.events.count("load demo") == 2
    assert resident.reloads == 1
