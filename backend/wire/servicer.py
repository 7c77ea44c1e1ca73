"""The seven RPCs, one short method each. A method parses its request, calls the rooms below, and returns the response;
errors become statuses. Nothing is computed here.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from math import inf
from typing import Any, TypeAlias, TypeVar

from backend.audio.decoding.pool import DecoderPool
from backend.errors import AsrError, EngineFailure, LoadRefused
from backend.live.live_transcriber import LiveTranscriber
from backend.options.load_options import TranscribeOptions
from backend.pipeline.admission import Admission
from backend.pipeline.transcriber import Transcriber
from backend.pipeline.transcript_builder import Transcript, in_thread_if_long
from backend.process.machine.system_cause import engine_failure
from backend.process.request_stats import RequestStats, current_stats
from backend.serving.resident import Resident
from backend.serving.scheduler import Scheduler
from backend.wire import backend_pb2 as pb
from backend.wire import backend_pb2_grpc as rpc
from backend.wire import messages
from backend.wire.auth import check_identity
from backend.wire.live import live_responses
from backend.wire.status import refuse, status_of
from backend.wire.wrapping import Context

_log = logging.getLogger(__name__)

Response = TypeVar("Response")
Method: TypeAlias = Callable[[Any, Any, Context], Awaitable[Response]]

LOADED = "Model loaded successfully"  # the gateway's tests compare it


def errors_as_statuses(method: Method[Response]) -> Method[Response]:
    """Decorator for unary methods: an error ends the call with the error's status."""

    @functools.wraps(method)
    async def wrapper(self: Any, request: Any, context: Context) -> Response:
        async with _statuses(method.__name__, context, self._scheduler):
            return await method(self, request, context)

    return wrapper


@asynccontextmanager
async def _statuses(method: str, context: Context, scheduler: Scheduler) -> AsyncIterator[None]:
    """End the call with the status of the error raised inside. Any other exception is logged and becomes INTERNAL."""
    error: AsrError
    try:
        yield
        return
    except AsrError as raised:
        error = raised
    except Exception as foreign:  # noqa: BLE001 - the last line of defence: a status, whatever was raised
        _log.exception("%s failed", method)
        error = engine_failure(foreign)
    await refuse(context, error, scheduler.backlog_s)


class BackendServicer(rpc.BackendServicer):
    """LocalAI's backend contract over one resident model."""

    def __init__(
        self,
        resident: Resident,
        scheduler: Scheduler,
        decoder_pool: DecoderPool,
        admission: Admission,
        live: LiveTranscriber,
    ) -> None:
        self._live = live
        self._resident = resident
        self._scheduler = scheduler
        self._transcriber = Transcriber(resident, scheduler, decoder_pool, admission=admission)
        self._tasks: set[asyncio.Task[Any]] = set()

    async def Health(self, request: pb.HealthMessage, context: Context) -> pb.Reply:  # noqa: N802 - the wire's name
        if self._scheduler.dead:
            await refuse(context, EngineFailure())
        return pb.Reply(message=b"OK")

    @errors_as_statuses
    async def LoadModel(self, request: pb.ModelOptions, context: Context) -> pb.Result:  # noqa: N802
        try:
            # The load survives the client's deadline: when the client tries again, the model is there.
            await self._to_completion(self._resident.load(messages.load_options(request)))
        except LoadRefused as refusal:
            _log.warning("LoadModel refused: %s", refusal)
            stats = _call_stats()
            stats.finish, stats.code = type(refusal).__name__, status_of(refusal).name  # the call's own code is OK
            return pb.Result(success=False, message=str(refusal))
        return pb.Result(success=True, message=LOADED)

    @errors_as_statuses
    async def AudioTranscription(self, request: pb.TranscriptRequest, context: Context) -> pb.TranscriptResult:  # noqa: N802
        stats = _call_stats()
        self._check_model(request.ModelIdentity)
        options, deadline_s = self._options(request), _deadline_s(context)
        transcript = await self._transcriber.transcribe(request.dst, options, stats, deadline_s)
        return await _result(transcript, stats)

    async def AudioTranscriptionStream(  # noqa: N802
        self, request: pb.TranscriptRequest, context: Context
    ) -> AsyncIterator[pb.TranscriptStreamResponse]:
        stats = _call_stats()
        async with _statuses("AudioTranscriptionStream", context, self._scheduler):
            self._check_model(request.ModelIdentity)
            options, deadline_s = self._options(request), _deadline_s(context)
            async with aclosing(self._transcriber.stream(request.dst, options, stats, deadline_s)) as stream:
                async for item in stream:
                    if isinstance(item, Transcript):
                        yield pb.TranscriptStreamResponse(final_result=await _result(item, stats))
                    else:
                        stats.record_delta()
                        yield pb.TranscriptStreamResponse(delta=item)

    async def AudioTranscriptionLive(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.TranscriptLiveRequest], context: Context
    ) -> AsyncIterator[pb.TranscriptLiveResponse]:
        async with _statuses("AudioTranscriptionLive", context, self._scheduler):
            self._check_model()
            responses = live_responses(aiter(request_iterator), self._live, _call_stats())
            async with aclosing(responses):
                async for response in responses:
                    yield response

    @errors_as_statuses
    async def Status(self, request: pb.HealthMessage, context: Context) -> pb.StatusResponse:  # noqa: N802
        states = pb.StatusResponse.State
        if self._resident.loading or self._scheduler.busy:
            state = states.BUSY
        else:
            state = states.READY if self._resident.identity else states.UNINITIALIZED
        return messages.status_response(state, self._resident.weight_bytes)

    @errors_as_statuses
    async def Free(self, request: pb.HealthMessage, context: Context) -> pb.Result:  # noqa: N802
        await self._to_completion(self._resident.free())
        return pb.Result(success=True)

    def _options(self, request: pb.TranscriptRequest) -> TranscribeOptions:
        return messages.transcribe_options(request, aligns=self._resident.aligns)

    def _check_model(self, requested: str = "") -> None:
        """Raises ModelNotLoaded or IdentityMismatch.

        It is the first check, because on these errors the gateway loads the model again.
        """
        self._resident.check_loaded()
        check_identity(loaded=self._resident.identity, requested=requested)

    async def _to_completion(self, work: Coroutine[Any, Any, None]) -> None:
        """Await `work`, which runs to its end even if this call is cancelled."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.shield(task)


def _deadline_s(context: Context) -> float:
    """The client's deadline, in seconds of time.monotonic()."""
    remaining_s = context.time_remaining()
    return inf if remaining_s is None else time.monotonic() + remaining_s


async def _result(transcript: Transcript, stats: RequestStats) -> pb.TranscriptResult:
    """The response, of which the call's stats have what is logged."""
    stats.language, stats.segments = transcript.language, len(transcript.segments)
    stats.warnings = transcript.warnings
    return await in_thread_if_long(transcript.duration_s, lambda: messages.transcript_result(transcript))


def _call_stats() -> RequestStats:
    """The stats of this call, which wire/request_log.py has set."""
    return current_stats() or RequestStats()
