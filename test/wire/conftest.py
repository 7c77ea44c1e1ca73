"""A real server on port 0 and a real client, with fakes for the models."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
import soundfile

from backend.log import LogLines
from backend.server import Serving, start
from backend.wire import backend_pb2 as pb
from backend.wire import backend_pb2_grpc as rpc


@dataclass
class Service:
    stub: rpc.BackendStub
    port: int
    serving: Serving

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
async def serving(loader, guard, token: str = "", metrics: str = "") -> AsyncIterator[Service]:
    serving = await start("127.0.0.1:0", loader, guard, token, metrics)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{serving.port}") as channel:
        yield Service(rpc.BackendStub(channel), serving.port, serving)
    await serving.stop(0)


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


class Log:
    """What the backend logged, as it would stand on stderr."""

    def __init__(self) -> None:
        self._stream = io.StringIO()
        self.handler = logging.StreamHandler(self._stream)
        self.handler.setFormatter(LogLines())

    @property
    def text(self) -> str:
        return self._stream.getvalue()

    @property
    def requests(self) -> list[dict]:
        """The lines of JSON."""
        return [json.loads(line) for line in self.text.splitlines() if line.startswith("{")]

    async def after(self, count: int) -> list[dict]:
        """`requests`, once there are `count`: an error's status is on its way before its line is written."""
        for _ in range(1000):
            if len(self.requests) >= count:
                break
            await asyncio.sleep(0.01)
        assert len(self.requests) == count
        return self.requests


@pytest.fixture
def log() -> Iterator[Log]:
    log, root = Log(), logging.getLogger()
    level = root.level
    root.addHandler(log.handler)
    root.setLevel(logging.INFO)
    yield log
    root.removeHandler(log.handler)
    root.setLevel(level)
