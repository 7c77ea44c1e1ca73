"""grpc.health.v1, through gRPC."""

from __future__ import annotations

import asyncio
import threading

import grpc
import pytest
from grpc_health.v1 import health_pb2 as health
from grpc_health.v1 import health_pb2_grpc as rpc

from backend.wire import backend_pb2 as pb

SERVING, NOT_SERVING = health.HealthCheckResponse.SERVING, health.HealthCheckResponse.NOT_SERVING
UNKNOWN = health.HealthCheckResponse.SERVICE_UNKNOWN


@pytest.fixture
async def stub(service):
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        yield rpc.HealthStub(channel)


async def states(stub: rpc.HealthStub) -> set[int]:
    listed = (await stub.List(health.HealthListRequest(), timeout=5)).statuses
    checked = {name: await stub.Check(health.HealthCheckRequest(service=name), timeout=5) for name in listed}
    assert sorted(listed) == ["", "backend.Backend"]
    assert checked == dict(listed)
    return {reply.status for reply in checked.values()}


async def test_the_status_is_serving_while_a_model_is_loaded(service, stub) -> None:
    assert await states(stub) == {NOT_SERVING}
    await service.load(Options=["max_tokens:x"])
    assert await states(stub) == {NOT_SERVING}
    await service.load()
    assert await states(stub) == {SERVING}
    await service.stub.Free(pb.HealthMessage())
    assert await states(stub) == {NOT_SERVING}


async def test_another_load_is_not_serving_until_it_is_done(service, stub, loader) -> None:
    await service.load()
    loader.gate = threading.Event()
    loading = asyncio.ensure_future(service.load(Model="other"))
    watch = stub.Watch(health.HealthCheckRequest())
    while (await watch.read()).status != NOT_SERVING:
        pass
    assert await states(stub) == {NOT_SERVING}
    loader.gate.set()
    assert (await loading).success
    assert await states(stub) == {SERVING}
    watch.cancel()


async def test_after_a_failed_load_that_restores_the_old_model_the_status_is_serving(service, stub, loader) -> None:
    await service.load()
    loader.refusals["other"] = RuntimeError("truncated")
    assert not (await service.load(Model="other")).success
    assert await states(stub) == {SERVING}


async def test_an_unknown_service_is_not_found(stub) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Check(health.HealthCheckRequest(service="other"), timeout=5)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    watch = stub.Watch(health.HealthCheckRequest(service="other"))
    assert (await watch.read()).status == UNKNOWN
    watch.cancel()


async def test_a_watch_streams_every_change_and_ends_with_the_server(service, stub) -> None:
    watches = [stub.Watch(health.HealthCheckRequest(service=name)) for name in ("", "backend.Backend", "other")]
    assert [(await watch.read()).status for watch in watches] == [NOT_SERVING, NOT_SERVING, UNKNOWN]
    await service.load()
    assert [(await watch.read()).status for watch in watches[:2]] == [SERVING, SERVING]
    await service.stub.Free(pb.HealthMessage())
    assert [(await watch.read()).status for watch in watches[:2]] == [NOT_SERVING, NOT_SERVING]
    await service.load()
    assert [(await watch.read()).status for watch in watches[:2]] == [SERVING, SERVING]
    stopping = asyncio.ensure_future(service.serving.stop(grace_s=60))
    assert [(await watch.read()).status for watch in watches[:2]] == [NOT_SERVING, NOT_SERVING]
    assert [await watch.read() for watch in watches] == [grpc.aio.EOF] * 3
    await asyncio.wait_for(stopping, 20)  # not the 60 s that an open watch would hold it


async def test_during_the_shutdown_the_status_stays_not_serving(service, stub, loader, wav) -> None:
    await service.load()
    loader.recognizer.gate = threading.Event()
    running = asyncio.ensure_future(service.transcribe(wav()))
    await asyncio.to_thread(loader.recognizer.entered.wait, 20)
    watch = stub.Watch(health.HealthCheckRequest())
    assert (await watch.read()).status == SERVING
    stopping = asyncio.ensure_future(service.serving.stop(grace_s=60))
    assert (await watch.read()).status == NOT_SERVING
    service.serving.readiness.set(True)
    assert await watch.read() == grpc.aio.EOF
    loader.recognizer.gate.set()
    assert (await running).text
    await stopping


async def test_with_a_token_readiness_needs_it_too(serve) -> None:
    service = await serve(token="geheim")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        stub = rpc.HealthStub(channel)
        for call in (
            stub.Check(health.HealthCheckRequest(), timeout=5),
            stub.List(health.HealthListRequest(), timeout=5),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Watch(health.HealthCheckRequest()).read()
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
        given = (("authorization", "Bearer geheim"),)
        assert (await stub.Check(health.HealthCheckRequest(), metadata=given, timeout=5)).status == NOT_SERVING
