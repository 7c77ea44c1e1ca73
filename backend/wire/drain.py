"""The end of the process as its callers see it: what runs may finish, what comes later is told so.

grpc's own stop closes the port first and then breaks off what is left; clients see UNAVAILABLE both times ("connection
refused", "Cancelling all calls"), and the gateway would evict the model everywhere. So the port stays open while
anything is served, and every call ends with a status of ours. Health and Status answer to the last.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import grpc

from backend.errors import Stopping
from backend.wire.status import refuse

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

# A load that ends now serves nobody, so it is not waited for.
_WORTH_WAITING = {
    "AudioTranscription": True,
    "AudioTranscriptionStream": True,
    "AudioTranscriptionLive": True,
    "LoadModel": False,
}
_TOLD_S = 1.0  # for the statuses of the calls that are broken off to leave the process


class Drain(grpc.aio.ServerInterceptor):
    """Knows the calls that are being served. `drain` is awaited once; `cut` may be called at any time after that."""

    def __init__(self) -> None:
        self._calls: dict[asyncio.Task[Any], bool] = {}  # what serves a call -> whether it is worth waiting for
        self._cut: set[asyncio.Task[Any]] = set()
        self._stopping = False

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler | None:
        handler = await continuation(handler_call_details)
        worth = _WORTH_WAITING.get(str(handler_call_details.method).rpartition("/")[2])
        return handler if handler is None or worth is None else self._watched(handler, worth)

    async def drain(self, grace_s: float) -> None:
        """Take no new work; return when what runs has ended, at the latest after the grace and what it takes to cut."""
        self._stopping = True
        self._cancel({task for task, worth in self._calls.items() if not worth})
        if self._calls:
            await asyncio.wait(set(self._calls), timeout=grace_s)
        if self._calls:
            self.cut()
            await asyncio.wait(set(self._calls), timeout=_TOLD_S)

    def cut(self) -> None:
        """Break off what still runs."""
        self._cancel(set(self._calls))

    def _cancel(self, tasks: set[asyncio.Task[Any]]) -> None:
        self._cut |= tasks
        for task in tasks:
            task.cancel()

    @asynccontextmanager
    async def _served(self, context: _Context, worth: bool) -> AsyncIterator[None]:
        if self._stopping:
            await refuse(context, Stopping())
        task = asyncio.current_task()
        assert task is not None
        self._calls[task] = worth
        try:
            yield
        except asyncio.CancelledError:
            if task not in self._cut:
                raise  # the client's wish
            await refuse(context, Stopping())
        finally:
            del self._calls[task]

    def _watched(self, handler: _Handler, worth: bool) -> _Handler:
        # typed for grpc's other, threaded server
        answer: Any = handler.stream_unary if handler.request_streaming else handler.unary_unary
        replies: Any = handler.stream_stream if handler.request_streaming else handler.unary_stream

        async def one(request: Any, context: _Context) -> Any:
            async with self._served(context, worth):
                return await answer(request, context)

        async def many(request: Any, context: _Context) -> AsyncIterator[Any]:
            async with self._served(context, worth):
                async for reply in replies(request, context):
                    yield reply

        make = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }[bool(handler.request_streaming), bool(handler.response_streaming)]
        served: _Handler = make(
            many if handler.response_streaming else one,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )
        return served
