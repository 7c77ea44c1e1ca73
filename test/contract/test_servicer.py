"""The contract with the gateway, through gRPC: what each RPC answers, and with which status."""

from __future__ import annotations

import asyncio
import socket
import threading

import grpc
import pytest

from backend.errors import CannotListen, CheckpointRefused
from backend.server import start
from backend.serving.protocols import Recognition
from backend.wire import backend_pb2 as pb
from backend.wire import backend_pb2_grpc as rpc

Code = grpc.StatusCode
State = pb.StatusResponse


async def test_health_says_ok_before_anything_is_loaded(service) -> None:
    assert (await service.stub.Health(pb.HealthMessage())).message == b"OK"


async def test_a_successful_load_returns_the_message_that_the_gateway_compares(service) -> None:
    result = await service.load()
    assert (result.success, result.message) == (True, "Model loaded successfully")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"Options": ["max_tokens:5"]}, "max_tokens"),
        ({"Options": ["max_new_tokens:nan"]}, "max_new_tokens"),
        ({"EngineArgs": '{"gpu": 1}'}, "gpu"),
        ({"DType": "int4"}, "DType"),
        ({"Quantization": "q8_0"}, "q8_0"),
        ({"LoraAdapters": ["x"]}, "LoRA"),
        ({"LoraAdapter": "x"}, "LoRA"),
        ({"MainGPU": "first"}, "MainGPU"),
        ({"TensorParallelSize": 2}, "TensorParallelSize"),
    ],
)
async def test_a_bad_load_fails_with_its_cause(service, fields: dict, named: str) -> None:
    result = await service.load(**fields)
    assert not result.success
    assert named in result.message


async def test_a_checkpoint_that_is_refused_is_a_failed_load(service, loader) -> None:
    loader.refusals["demo"] = CheckpointRefused("of the type 'whisper'")
    assert await service.load() == pb.Result(success=False, message="of the type 'whisper'")


async def test_health_is_not_ok_once_a_load_lost_the_device(service, loader) -> None:
    loader.refusals["demo"] = type("AcceleratorError", (RuntimeError,), {})("CUDA error: unspecified launch failure")
    result = await service.load()
    assert not result.success
    assert "the device was lost" in result.message
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.stub.Health(pb.HealthMessage())
    assert caught.value.code() == Code.INTERNAL
    assert service.serving.scheduler.dead == "the device was lost"


async def test_the_gateways_own_defaults_are_ignored(service) -> None:
    result = await service.load(
        ContextSize=4096, Seed=12345, NBatch=512, NGPULayers=99999999, Threads=2, FlashAttention="auto", DType=""
    )
    assert result.success


async def test_the_permission_to_run_a_checkpoints_code_is_not_used(service, caplog) -> None:
    with caplog.at_level("INFO"):
        assert (await service.load(TrustRemoteCode=True)).success
    assert "TrustRemoteCode is not needed" in caplog.text


async def test_status_and_free_follow_the_model(service, wav) -> None:
    async def status() -> pb.StatusResponse:
        return await service.stub.Status(pb.HealthMessage())

    assert (await status()).state == State.UNINITIALIZED
    await service.load(Options=["forced_aligner:x"])
    ready = await status()
    assert ready.state == State.READY
    assert (ready.memory.total, dict(ready.memory.breakdown)) == (1000, {"recognizer": 1000, "aligner": 0})
    await service.transcribe(wav(), timestamp_granularities=["word"])
    assert dict((await status()).memory.breakdown) == {"recognizer": 1000, "aligner": 300}
    assert (await service.stub.Free(pb.HealthMessage())).success
    assert (await status()).state == State.UNINITIALIZED
    refusal = await service.refusal(wav())
    assert (refusal.code(), refusal.details()) == (Code.FAILED_PRECONDITION, "qwen-asr: model not loaded")
    assert (await service.load()).success
    assert (await service.transcribe(wav())).text


async def test_free_and_status_answer_while_a_request_runs_and_the_request_finishes(service, loader, wav) -> None:
    await service.load()
    loader.recognizer.gate = threading.Event()
    running = asyncio.ensure_future(service.transcribe(wav()))
    await asyncio.to_thread(loader.recognizer.entered.wait, 20)
    assert (await service.stub.Status(pb.HealthMessage(), timeout=5)).state == State.BUSY
    assert (await service.stub.Free(pb.HealthMessage(), timeout=5)).success
    assert (await service.stub.Health(pb.HealthMessage(), timeout=5)).message == b"OK"
    loader.recognizer.gate.set()
    assert (await running).text.startswith("Heard ")


async def test_a_load_survives_its_clients_deadline(service, loader) -> None:
    loader.gate = threading.Event()
    with pytest.raises(grpc.aio.AioRpcError):
        await service.stub.LoadModel(pb.ModelOptions(Model="demo", Options=["vad:off"]), timeout=0.2)
    loader.gate.set()
    assert (await service.load()).success
    assert loader.events.count("load demo") == 1


async def test_an_internal_fault_is_internal_without_details(service, loader, wav) -> None:
    def fail(_utterance) -> Recognition:
        raise RuntimeError("connection refused: /secret/path")

    loader.recognizer.answer = fail
    await service.load()
    refusal = await service.refusal(wav())
    assert refusal.code() == Code.INTERNAL
    assert "secret" not in refusal.details()
    assert "connection" not in refusal.details()


async def test_a_stream_without_a_model_is_a_failed_precondition(service) -> None:
    for stream in (
        service.stub.AudioTranscriptionStream(pb.TranscriptRequest(dst="x")),
        service.stub.AudioTranscriptionLive(),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asyncio.wait_for(stream.read(), 5)
        assert (caught.value.code(), caught.value.details()) == (
            Code.FAILED_PRECONDITION,
            "qwen-asr: model not loaded",
        )
    await service.load()
    other = service.stub.AudioTranscriptionStream(pb.TranscriptRequest(dst="x", ModelIdentity="another"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(other.read(), 5)
    assert caught.value.code() == Code.NOT_FOUND


async def test_with_a_token_every_call_needs_it(serve) -> None:
    service = await serve(token="geheim-ß")
    calls = {
        "Health": lambda metadata: service.stub.Health(pb.HealthMessage(), metadata=metadata),
        "LoadModel": lambda metadata: service.stub.LoadModel(pb.ModelOptions(Model="demo"), metadata=metadata),
        "Status": lambda metadata: service.stub.Status(pb.HealthMessage(), metadata=metadata),
    }
    for metadata in (None, (("authorization", "Bearer wrong"),), (("authorization", "geheim"),)):
        for call in calls.values():
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(metadata)
            assert caught.value.code() == Code.UNAUTHENTICATED
        for stream in (
            service.stub.AudioTranscriptionStream(pb.TranscriptRequest(dst="x"), metadata=metadata),
            service.stub.AudioTranscriptionLive(metadata=metadata),  # has not sent anything
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await asyncio.wait_for(stream.read(), 5)
            assert caught.value.code() == Code.UNAUTHENTICATED


async def test_with_the_token_every_call_is_served(serve, wav) -> None:
    service = await serve(token="geheim")
    metadata = (("authorization", "Bearer geheim"),)
    assert (await service.stub.Health(pb.HealthMessage(), metadata=metadata)).message == b"OK"
    assert (await service.stub.LoadModel(pb.ModelOptions(Model="demo", Options=["vad:off"]), metadata=metadata)).success
    request = pb.TranscriptRequest(dst=str(wav()))
    assert (await service.stub.AudioTranscription(request, metadata=metadata)).text
    live = service.stub.AudioTranscriptionLive(metadata=metadata)
    await live.write(pb.TranscriptLiveRequest(config=pb.TranscriptLiveConfig()))
    assert (await live.read()).ready
    live.cancel()


async def test_messages_may_be_larger_than_grpcs_own_limit_up_to_the_gateways(service) -> None:
    async with grpc.aio.insecure_channel(
        f"127.0.0.1:{service.port}", options=[("grpc.max_send_message_length", -1)]
    ) as channel:
        stub = rpc.BackendStub(channel)
        result = await stub.LoadModel(pb.ModelOptions(Model="demo", EngineArgs=" " * (8 << 20)), timeout=20)
        assert result.success
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.LoadModel(pb.ModelOptions(Model="demo", EngineArgs=" " * (51 << 20)), timeout=20)
        assert caught.value.code() == Code.RESOURCE_EXHAUSTED


async def test_a_port_in_use_is_an_error(loader, decoder_pool) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(CannotListen, match="taken"):
            await start(f"127.0.0.1:{taken.getsockname()[1]}", loader, decoder_pool)
