"""The statistics of every call: opened before anything else sees the call, closed when it has its status.

Rules: it comes before the token's check, so that a refused call is counted, too. The request's id is the client's own
if it is a plain name, and goes back in the trailing metadata whatever becomes of the call. Calls that look after the
backend (Health, Status, Check, …) come all the time: they are counted, and have no line in the log.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import grpc
from grpc_health.v1 import health_pb2

from backend.errors import CapabilityMissing, EngineFailure
from backend.process import log
from backend.process.request_stats import CANCELLED, OK, TOO_LATE, RequestStats, Totals, begin, new_request_id
from backend.wire import backend_pb2 as pb

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_HandlerOf: TypeAlias = Callable[[grpc.HandlerCallDetails], Awaitable["_Handler | None"]]
_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

REQUEST_KEY, WARNING_KEY = "x-request-id", "x-asr-warning"
UNKNOWN_METHOD = "unknown"  # one name for all of them: a client must not be able to make up new series

_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_INVISIBLE = re.compile(r"[^ -~]")  # what metadata cannot hold
_LONGEST_WARNING = 1024  # bytes of metadata, of the 8 KiB that a client takes in all

_METHODS = {
    f"/{service.full_name}/{method.name}": method.name
    for file in (pb.DESCRIPTOR, health_pb2.DESCRIPTOR)
    for service in file.services_by_name.values()
    for method in service.methods
}
_LOGGED = {  # and whether the line is the whole one
    "AudioTranscription": True,
    "AudioTranscriptionStream": False,
    "AudioTranscriptionLive": False,
    "LoadModel": False,
    "Free": False,
}


class RequestLog(grpc.aio.ServerInterceptor):
    """Wraps every method's handler; to be the first of the interceptors."""

    def __init__(self, totals: Totals) -> None:
        self._totals = totals

    async def intercept_service(
        self, continuation: _HandlerOf, handler_call_details: grpc.HandlerCallDetails
    ) -> _Handler | None:
        handler = await continuation(handler_call_details)
        stats = RequestStats(
            request_id(handler_call_details.invocation_metadata or ()),
            _METHODS.get(handler_call_details.method or "", UNKNOWN_METHOD),
        )
        if handler is None:  # grpc answers by itself
            self._totals.open(stats)
            stats.code, stats.finish = grpc.StatusCode.UNIMPLEMENTED.name, CapabilityMissing.__name__
            self._totals.close(stats)
            return None
        return self._accounted(handler, stats)

    def _accounted(self, handler: Any, stats: RequestStats) -> _Handler:
        """A handler of the same kind that keeps the stats of its one call."""
        kind = bool(handler.request_streaming), bool(handler.response_streaming)
        coders = handler.request_deserializer, handler.response_serializer

        async def unary(request: Any, context: _Context) -> Any:
            with self._open(stats, context):
                reply = await (handler.stream_unary or handler.unary_unary)(request, context)
                context.set_trailing_metadata(trailing(stats))  # with the warnings
                return reply

        async def stream(request: Any, context: _Context) -> AsyncIterator[Any]:
            with self._open(stats, context):
                async for reply in (handler.stream_stream or handler.unary_stream)(request, context):
                    yield reply

        return _HANDLER[kind](stream if handler.response_streaming else unary, *coders)

    @contextmanager
    def _open(self, stats: RequestStats, context: _Context) -> Iterator[None]:
        began = time.monotonic()
        begin(stats)
        self._totals.open(stats)
        context.set_trailing_metadata(trailing(stats))  # an abort sends what is set before it
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            late = (left_s := context.time_remaining()) is not None and left_s <= 0
            stats.code, stats.finish = ("DEADLINE_EXCEEDED", TOO_LATE) if late else ("CANCELLED", CANCELLED)
            raise
        except grpc.aio.AbortError:
            stats.code = _name(context.code())
            stats.finish = stats.code if stats.finish == OK else stats.finish
            raise
        except Exception:
            stats.code, stats.finish = grpc.StatusCode.UNKNOWN.name, EngineFailure.__name__
            raise
        finally:
            stats.total_s = time.monotonic() - began
            self._totals.close(stats)
            if stats.method in _LOGGED:
                _log_soon(stats)


def _log_soon(stats: RequestStats) -> None:
    """The reply goes first."""
    try:
        asyncio.get_running_loop().call_soon(_write, stats)
    except RuntimeError:  # the process ends, and the call with it
        _write(stats)


def _write(stats: RequestStats) -> None:
    log.write_request(stats.line(whole=_LOGGED[stats.method]))


_HANDLER: dict[tuple[bool, bool], Callable[..., _Handler]] = {  # by what streams: requests, replies
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def request_id(metadata: Any) -> str:
    """The client's own id if it sent one that is a plain name of at most 64 characters, else a fresh one."""
    sent = next((value for key, value in metadata if key == REQUEST_KEY), "")
    return sent if isinstance(sent, str) and _SANE_ID.fullmatch(sent) else new_request_id()


def trailing(stats: RequestStats) -> tuple[tuple[str, str], ...]:
    """The call's trailing metadata: its id, and the warnings if there are any, in visible ASCII."""
    request = (REQUEST_KEY, stats.request)
    if not stats.warnings:
        return (request,)
    warning = _INVISIBLE.sub("?", "; ".join(stats.warnings))
    if len(warning) > _LONGEST_WARNING:
        warning = warning[: _LONGEST_WARNING - 3] + "..."
    return request, (WARNING_KEY, warning)


def _name(code: Any) -> str:
    return code.name if isinstance(code, grpc.StatusCode) else grpc.StatusCode.UNKNOWN.name
