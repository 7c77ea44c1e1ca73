"""An interceptor that measures every call: its log line, its request id, its part of the totals, its final status.

- It runs before the token's check, so that a refused call is counted, too.
- The request id is the client's own if that is a plain name. It is returned in the trailing metadata of every call,
  whatever its status.
- Calls that observe the backend (Health, Status, Check ...) come all the time: they are counted but not logged.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from grpc_health.v1 import health_pb2

from backend.errors import CapabilityMissing, EngineFailure
from backend.process import log
from backend.process.request_stats import (
    CANCELLED,
    DEADLINE_EXCEEDED,
    OK,
    RequestStats,
    Totals,
    new_request_id,
    set_current_stats,
)
from backend.wire import backend_pb2 as pb
from backend.wire.wrapping import Context, Continuation, Handler, wrapped

REQUEST_KEY, WARNING_KEY, RETRY_KEY = "x-request-id", "x-asr-warning", "retry-after"
UNKNOWN_METHOD = "unknown"  # one label for all unknown methods: a client must not be able to create metric series

_PLAIN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_NOT_PRINTABLE = re.compile(r"[^ -~]")  # characters that metadata cannot carry
_MAX_WARNING_BYTES = 1024  # of the 8 KiB of metadata that a client accepts in all

_METHODS = {
    f"/{service.full_name}/{method.name}": method.name
    for file in (pb.DESCRIPTOR, health_pb2.DESCRIPTOR)
    for service in file.services_by_name.values()
    for method in service.methods
}
# Methods that are logged, and the keys of the line beyond the shared ones: see RequestStats.log_line.
_LOGGED = {
    "AudioTranscription": {"transcription": True},
    "AudioTranscriptionStream": {"transcription": True, "stream": True},
    "AudioTranscriptionLive": {"transcription": True, "stream": True, "live": True},
    "LoadModel": {"transcription": False},
    "Free": {"transcription": False},
}


class RequestLog(grpc.aio.ServerInterceptor):
    """Wraps the handler of every method. Has to be the first interceptor."""

    def __init__(self, totals: Totals) -> None:
        self._totals = totals

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        stats = RequestStats(
            request_id(handler_call_details.invocation_metadata or ()),
            _METHODS.get(handler_call_details.method or "", UNKNOWN_METHOD),
        )
        if handler is None:  # an unknown method: grpc answers it without a handler
            self._totals.call_started(stats)
            stats.code, stats.finish = grpc.StatusCode.UNIMPLEMENTED.name, CapabilityMissing.__name__
            self._totals.call_ended(stats)
            return None
        return wrapped(handler, lambda _, context: self._measured(stats, context))

    @asynccontextmanager
    async def _measured(self, stats: RequestStats, context: Context) -> AsyncIterator[None]:
        set_current_stats(stats)
        self._totals.call_started(stats)
        context.set_trailing_metadata(trailing(stats))  # abort sends the metadata that was set before it
        try:
            yield
            context.set_trailing_metadata(trailing(stats))  # now with the warnings
        except (asyncio.CancelledError, GeneratorExit):
            late = (left_s := context.time_remaining()) is not None and left_s <= 0
            stats.code, stats.finish = ("DEADLINE_EXCEEDED", DEADLINE_EXCEEDED) if late else ("CANCELLED", CANCELLED)
            raise
        except grpc.aio.AbortError:
            stats.code = _name_of(context.code())
            stats.finish = stats.code if stats.finish == OK else stats.finish
            raise
        except Exception:  # any failure of a method; it is only noted here, and raised again
            stats.code, stats.finish = grpc.StatusCode.UNKNOWN.name, EngineFailure.__name__
            raise
        finally:
            stats.total_s = time.monotonic() - stats.started
            self._totals.call_ended(stats)
            if stats.method in _LOGGED:
                _log_soon(stats)


def _log_soon(stats: RequestStats) -> None:
    """Write the log line after the response has been sent."""
    try:
        asyncio.get_running_loop().call_soon(_write, stats)
    except RuntimeError:  # no running loop: the process is exiting, and with it the call
        _write(stats)


def _write(stats: RequestStats) -> None:
    log.write_request(stats.log_line(**_LOGGED[stats.method]))


def request_id(metadata: Any) -> str:
    """The client's id if it sent a plain name of at most 64 characters, otherwise a new one."""
    sent = next((value for key, value in metadata if key == REQUEST_KEY), "")
    return sent if isinstance(sent, str) and _PLAIN_ID.fullmatch(sent) else new_request_id()


def trailing(stats: RequestStats) -> tuple[tuple[str, str], ...]:
    """The call's trailing metadata: its id; whole seconds after which a refused caller may try again; its warnings, if
    any, in at most 1 KiB of printable ASCII.
    """
    request = (REQUEST_KEY, stats.request)
    if stats.retry_after_s:
        return request, (RETRY_KEY, str(stats.retry_after_s))
    if not stats.warnings:
        return (request,)
    warning = _NOT_PRINTABLE.sub("?", "; ".join(stats.warnings))
    if len(warning) > _MAX_WARNING_BYTES:
        warning = warning[: _MAX_WARNING_BYTES - 3] + "..."
    return request, (WARNING_KEY, warning)


def _name_of(code: Any) -> str:
    return code.name if isinstance(code, grpc.StatusCode) else grpc.StatusCode.UNKNOWN.name
