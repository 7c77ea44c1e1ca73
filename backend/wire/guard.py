"""Who may call: the operator's bearer token on every method, and the model that the caller believes is here."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc

from backend.errors import IdentityMismatch, Unauthenticated
from backend.wire.status import refuse

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_HandlerOf: TypeAlias = Callable[[grpc.HandlerCallDetails], Awaitable["_Handler | None"]]


class BearerToken(grpc.aio.ServerInterceptor):
    """Refuses every call, unary or streaming, whose metadata lacks `authorization: Bearer <token>`.

    It answers before a handler is chosen, so a stream is refused before it has sent anything.
    """

    def __init__(self, token: str) -> None:
        self._expected = f"Bearer {token}".encode()

    async def intercept_service(
        self, continuation: _HandlerOf, handler_call_details: grpc.HandlerCallDetails
    ) -> _Handler | None:
        handler = await continuation(handler_call_details)
        sent = [value for key, value in handler_call_details.invocation_metadata or () if key == "authorization"]
        given = sent[0] if sent else ""
        if hmac.compare_digest(given.encode() if isinstance(given, str) else given, self._expected):
            return handler
        return _refusing(handler)


def _refusing(handler: _Handler | None) -> _Handler:
    """A handler of the same kind that refuses."""

    async def refuse_unary(_request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await refuse(context, Unauthenticated())

    async def refuse_stream(_request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        await refuse(context, Unauthenticated())
        yield  # never reached; makes this a stream

    if handler is None or not (handler.request_streaming or handler.response_streaming):
        return grpc.unary_unary_rpc_method_handler(refuse_unary)
    if not handler.request_streaming:
        return grpc.unary_stream_rpc_method_handler(refuse_stream)
    return grpc.stream_stream_rpc_method_handler(refuse_stream)


def check_identity(*, loaded: str, requested: str) -> None:
    """Raise IdentityMismatch if both sides name a model and the names differ."""
    if loaded and requested and loaded != requested:
        raise IdentityMismatch(loaded, requested)
