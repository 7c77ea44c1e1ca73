"""Who may call, and with how much: the operator's bearer token on every method, requests of a bounded size, and the
model that the caller believes is here.
"""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc

from backend.errors import IdentityMismatch, RequestTooLarge, Unauthenticated
from backend.wire.status import refuse

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_HandlerOf: TypeAlias = Callable[[grpc.HandlerCallDetails], Awaitable["_Handler | None"]]
_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

_TRANSCRIPTIONS = ("/AudioTranscription", "/AudioTranscriptionStream")
_LARGEST_REQUEST = 1 << 20  # bytes; a path, a prompt and a few words. Parsing 50 MiB of small fields would delay Health


class BearerToken(grpc.aio.ServerInterceptor):
    """Refuses every call, unary or streaming, whose metadata lacks `authorization: Bearer <token>`, exactly once.

    It answers before a handler is chosen, so a call is refused before it has sent anything.
    """

    def __init__(self, token: str) -> None:
        self._expected = f"Bearer {token}".encode()

    async def intercept_service(
        self, continuation: _HandlerOf, handler_call_details: grpc.HandlerCallDetails
    ) -> _Handler | None:
        sent = [value for key, value in handler_call_details.invocation_metadata or () if key == "authorization"]
        given = sent[0] if len(sent) == 1 else ""
        if hmac.compare_digest(given.encode() if isinstance(given, str) else given, self._expected):
            return await continuation(handler_call_details)
        # on the wire all kinds of calls are alike, and this one waits for no message
        return grpc.stream_stream_rpc_method_handler(_refuse_the_stranger)


async def _refuse_the_stranger(_requests: Any, context: _Context) -> AsyncIterator[Any]:
    await refuse(context, Unauthenticated())
    yield  # never reached; makes this a stream


class SmallRequests(grpc.aio.ServerInterceptor):
    """Refuses a transcription's request that is absurdly large before it is parsed. Live sound is no such request."""

    async def intercept_service(
        self, continuation: _HandlerOf, handler_call_details: grpc.HandlerCallDetails
    ) -> _Handler | None:
        handler = await continuation(handler_call_details)
        if handler is None or not str(handler_call_details.method).endswith(_TRANSCRIPTIONS):
            return handler
        parse: Any = handler.request_deserializer
        answer: Any = handler.unary_stream if handler.response_streaming else handler.unary_unary

        def parsed(data: bytes) -> Any:  # None: too large
            return parse(data) if len(data) <= _LARGEST_REQUEST else None

        async def one(request: Any, context: _Context) -> Any:
            if request is None:
                await refuse(context, RequestTooLarge(_LARGEST_REQUEST))
            return await answer(request, context)

        async def many(request: Any, context: _Context) -> AsyncIterator[Any]:
            if request is None:
                await refuse(context, RequestTooLarge(_LARGEST_REQUEST))
            async for reply in answer(request, context):
                yield reply

        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(many, parsed, handler.response_serializer)
        return grpc.unary_unary_rpc_method_handler(one, parsed, handler.response_serializer)


def check_identity(*, loaded: str, requested: str) -> None:
    """Raise IdentityMismatch if both sides name a model and the names differ."""
    if loaded and requested and loaded != requested:
        raise IdentityMismatch(loaded, requested)
