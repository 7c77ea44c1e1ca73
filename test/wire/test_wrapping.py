"""Re-wrapped handlers of streams: the guards see every end of a call, also one while a response is being written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from backend.wire.wrapping import wrapped


class Writing:
    """A context whose client takes `takes` responses and then reads no more."""

    def __init__(self, takes: int) -> None:
        self.takes, self.written = takes, list[str]()

    async def write(self, response: str) -> None:
        if len(self.written) == self.takes:
            await asyncio.Event().wait()
        self.written.append(response)


@pytest.mark.parametrize("layers", [1, 3])
async def test_a_call_that_is_cancelled_while_it_writes_ends_its_generator_and_every_guard(layers: int) -> None:
    ended: list[str] = []

    async def responses(request: str, context: Any) -> AsyncIterator[str]:
        try:
            for number in range(9):
                yield f"{request} {number}"
        finally:
            ended.append("responses")

    @asynccontextmanager
    async def guard(request: str, context: Any) -> AsyncIterator[None]:
        try:
            yield
        except asyncio.CancelledError:
            ended.append("guard")
            raise

    handler: Any = grpc.unary_stream_rpc_method_handler(responses)
    for _ in range(layers):
        handler = wrapped(handler, guard)
    context: Any = Writing(takes=3)
    call = asyncio.ensure_future(handler.unary_stream("ask", context))
    while len(context.written) < 3:
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    call.cancel()
    await asyncio.wait({call})
    assert call.cancelled()
    assert context.written == ["ask 0", "ask 1", "ask 2"]
    assert ended == ["responses", *["guard"] * layers]
