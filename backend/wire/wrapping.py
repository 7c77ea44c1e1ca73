"""Re-wrapping of RPC handlers: what the interceptors share.

An interceptor gets a handler from the next one and returns a handler of the same kind (unary or streaming requests,
unary or streaming responses) that does something around each call. The four kinds are told apart here and nowhere else.

A wrapped stream of responses is a coroutine that writes them. grpc would leave a generator suspended when the call ends
while a response is written: its `finally` would run whenever the garbage collector finds it, and no guard would see it.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any, TypeAlias

import grpc

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Continuation: TypeAlias = Callable[[grpc.HandlerCallDetails], Awaitable["Handler | None"]]
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Guard: TypeAlias = Callable[[Any, Context], AbstractAsyncContextManager[None]]

_MAKE_HANDLER: dict[tuple[bool, bool], Callable[..., Handler]] = {  # by (request streams, response streams)
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def wrapped(handler: Handler, guard: Guard, deserializer: Callable[[bytes], Any] | None = None) -> Handler:
    """A handler of the same kind that runs each call inside `guard(request or request iterator, context)`.

    `guard` may end the call before it starts (see status.refuse) and sees whatever the call raises. `deserializer`
    replaces the handler's own.
    """
    # The stubs describe grpc's threaded server: hence Any.
    call: Any = handler.stream_unary if handler.request_streaming else handler.unary_unary
    stream_call: Any = handler.stream_stream if handler.request_streaming else handler.unary_stream

    async def unary(request: Any, context: Context) -> Any:
        async with guard(request, context):
            return await call(request, context)

    async def stream(request: Any, context: Context) -> None:
        async with guard(request, context):
            if not inspect.isasyncgenfunction(stream_call):
                await stream_call(request, context)
                return
            async with aclosing(stream_call(request, context)) as responses:
                async for response in responses:
                    await context.write(response)

    make = _MAKE_HANDLER[bool(handler.request_streaming), bool(handler.response_streaming)]
    behaviour = stream if handler.response_streaming else unary
    return make(behaviour, deserializer or handler.request_deserializer, handler.response_serializer)
