"""Checks before a call is served: the operator's bearer token on every method, the size of a request, and the identity
of the model that the caller expects.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import grpc

from backend.audio.waveform import SAMPLE_RATE
from backend.errors import IdentityMismatch, RequestTooLarge, Unauthenticated
from backend.process.operator_token import TOKEN_VARIABLE
from backend.process.request_stats import current_stats
from backend.wire.messages import MAX_LIVE_MESSAGE_S, UNPARSED_LIVE_REQUEST
from backend.wire.status import refuse
from backend.wire.wrapping import Context, Continuation, Handler, wrapped

_log = logging.getLogger(__name__)

_TRANSCRIPTIONS = ("/AudioTranscription", "/AudioTranscriptionStream")
# A request holds a path, a prompt and a few words. Parsing 50 MiB of small fields would block the event loop, and with
# it Health.
_MAX_REQUEST_BYTES = 1 << 20
_LIVE = "/AudioTranscriptionLive"
_MAX_LIVE_BYTES = 4 * SAMPLE_RATE * MAX_LIVE_MESSAGE_S + 1024  # float32 samples, and what is around them


class BearerToken(grpc.aio.ServerInterceptor):
    """Refuses every call, unary or streaming, whose metadata does not hold exactly one `authorization: Bearer <token>`.

    It answers before a handler is chosen, so a call is refused before it has sent a message. The first refusal of each
    kind is a line in the log: a gateway whose own Health is refused only says that the backend does not get ready.
    """

    def __init__(self, token: str) -> None:
        self._expected = f"Bearer {token}".encode()
        self._logged: set[str] = set()

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        sent = [value for key, value in handler_call_details.invocation_metadata or () if key == "authorization"]
        given = sent[0] if len(sent) == 1 else ""
        if hmac.compare_digest(given.encode() if isinstance(given, str) else given, self._expected):
            return await continuation(handler_call_details)
        fault = "another token" if sent else "no token"
        # All kinds of calls look alike on the wire, and a stream handler does not wait for a message.
        return grpc.stream_stream_rpc_method_handler(partial(self._refuse, fault))

    async def _refuse(self, fault: str, _requests: Any, context: Context) -> None:
        if fault not in self._logged:
            self._logged.add(fault)
            method = stats.method if (stats := current_stats()) else "call"
            _log.warning(
                "%s was refused: it carries %s. %s is set for this process, so its callers need the same value; on a "
                "LocalAI worker it is the registration token. Later refusals for this are counted, not logged",
                method, fault, TOKEN_VARIABLE,
            )  # fmt: skip
        await refuse(context, Unauthenticated())


class SmallRequests(grpc.aio.ServerInterceptor):
    """Refuses a transcription request of more than 1 MiB before it is parsed, and of a live stream of 3.7 MiB.

    The latter reach the method as messages.UNPARSED_LIVE_REQUEST: the stream of requests has begun.
    """

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        if handler is None or not method.endswith((*_TRANSCRIPTIONS, _LIVE)):
            return handler
        parse: Any = handler.request_deserializer

        def parse_live(data: bytes) -> Any:
            return parse(data) if len(data) <= _MAX_LIVE_BYTES else UNPARSED_LIVE_REQUEST

        if method.endswith(_LIVE):
            return wrapped(handler, _as_it_is, parse_live)

        def parse_if_small(data: bytes) -> Any:  # None: too large
            return parse(data) if len(data) <= _MAX_REQUEST_BYTES else None

        return wrapped(handler, _refuse_unparsed, parse_if_small)


@asynccontextmanager
async def _as_it_is(_requests: Any, _context: Context) -> AsyncIterator[None]:
    yield


@asynccontextmanager
async def _refuse_unparsed(request: Any, context: Context) -> AsyncIterator[None]:
    if request is None:
        await refuse(context, RequestTooLarge(_MAX_REQUEST_BYTES))
    yield


def check_identity(*, loaded: str, requested: str) -> None:
    """Raise IdentityMismatch if both names are given and differ."""
    if loaded and requested and loaded != requested:
        raise IdentityMismatch(loaded, requested)
