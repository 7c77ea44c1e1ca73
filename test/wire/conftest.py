"""A real server on port 0 and a real client, with fakes for the models."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
import soundfile

from backend.server import start
from backend.wire import backend_pb2 as pb
from backend.wire import backend_pb2_grpc as rpc


@dataclass
class Service:
    stub: rpc.BackendStub
    port: int

    async def load(self, **fields) -> pb.Result:
        options = [*fields.pop("Options", []), "vad:off"]  # noise is speech to these fakes
        request = pb.ModelOptions(**{"Model": "demo", **fields}, Options=options)
        return await self.stub.LoadModel(request, timeout=20)

    async def transcribe(self, path: Path | str, **fields) -> pb.TranscriptResult:
        return await self.stub.AudioTranscription(pb.TranscriptRequest(dst=str(path), **fields), timeout=20)

    async def refusal(self, path: Path | str, **fields) -> grpc.aio.AioRpcError:
        """The error that a transcription is answered with."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.transcribe(path, **fields)
        return caught.value


@asynccontextmanager
async def serving(loader, guard, token: str = "") -> AsyncIterator[Service]:
    server, port, scheduler = await start("127.0.0.1:0", loader, guard, token)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Service(rpc.BackendStub(channel), port)
    await server.stop(0)
    scheduler.stop()


@pytest.fixture
async def service(loader, guard) -> AsyncIterator[Service]:
    async with serving(loader, guard) as service:
        yield service


@pytest.fixture
async def serve(loader, guard) -> AsyncIterator[Callable[..., object]]:
    """`await serve(token=...)`: a service of one's own choosing."""
    async with AsyncExitStack() as stack:
        yield lambda **options: stack.enter_async_context(serving(loader, guard, **options))


@pytest.fixture
def wav(tmp_path: Path) -> Callable[..., Path]:
    """`wav(seconds=2.0)`: a file with noise of that length, another one at each call."""
    rng = np.random.default_rng(0)
    made = 0

    def make(seconds: float = 2.0) -> Path:
        nonlocal made
        made += 1
        path = tmp_path / f"clip{made}.wav"
        soundfile.write(path, rng.uniform(-0.5, 0.5, round(seconds * 16_000)).astype(np.float32), 16_000)
        return path

    return make
