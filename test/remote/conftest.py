"""Servers that speak vLLM's dialect, and a backend that recognises on them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import pytest
from grpc_service import Service, serving

from backend.server import LazyLoader
from devtools.vllm_server import VllmServer


@pytest.fixture
def vllm() -> Iterator[Callable[..., VllmServer]]:
    """`vllm(fault=...)`: one more server."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(VllmServer(**options).running())


@pytest.fixture
async def backend(decoder_pool, asr_folder: Path) -> AsyncIterator[Callable]:
    """`await backend(servers, "option:value")`: a service with the demo's tokenizer and no weights, over these."""
    async with AsyncExitStack() as stack:

        async def start(servers: list[VllmServer], *options: str, **fields) -> Service:
            service = await stack.enter_async_context(serving(LazyLoader(decoder_pool), decoder_pool))
            urls = ",".join(server.url for server in servers)
            result = await service.load(
                Model="demo", ModelFile=str(asr_folder), Options=[f"engine_url:{urls}", *options], **fields
            )
            assert result.success, result.message
            return service

        yield start
