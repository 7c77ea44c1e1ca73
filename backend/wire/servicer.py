"""The seven RPCs, one short method each. Nothing here computes: it parses, asks, and puts errors into statuses."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from math import inf
from typing import Any, TypeAlias, TypeVar

import grpc

from backend.audio.decoding.pool import DecoderPool
from backend.errors import AsrError, CapabilityMissing, EngineFailure, LoadRefused
from backend.pipeline.admission import Admission
from backend.pipeline.transcriber import Transcriber, in_thread_if_long
from backend.process.request_stats import RequestStats, current
from backend.serving.resident import Resident
from backend.serving.scheduler import Scheduler
from backend.wire import backend_pb2 as pb
from backend.wire import backend_pb2_grpc as rpc
from backend.wire import messages
from backend.wire.auth import check_identity
from backend.wire.status import refuse

_log = logging.getLogger(__name__)

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Reply = TypeVar("Reply")
Method: TypeAlias = Callable[[Any, Any, Context], Awaitable[Reply]]

LOADED = "Model loaded successfully"  # the gateway's tests compare it


def answered(method: Method[Reply]) -> Method[Reply]:
    """The method with its errors turned into statuses."""

    @functools.wraps(method)
    async def answer(self: Any, request: Any, context: Context) -> Reply:
        async with _statuses(method.__name__, context):
            return await method(self, request, context)
        raise AssertionError("refuse does not return")

    return answer


@asynccontextmanager
async def _statuses(method: str, context: Context) -> AsyncIterator[None]:
    """Errors end the call with their status; what nobody expected is a fault of ours: logged, INTERNAL."""
    cause: AsrError
    try:
        yield
        return
    except AsrError as error:
        cause = error
    except Exception:  # noqa: BLE001 - the last line of defence: a client gets a status, whatever happened
        _log.exception("%s failed", method)
        cause = EngineFailure()
    await refuse(context, cause)


class BackendServicer(rpc.BackendServicer):
    """LocalAI's backend contract over one resident model."""

    def __init__(
        self, resident: Resident, scheduler: Scheduler, decoder_pool: DecoderPool, admission: Admission
    ) -> None:
        self._resident = resident
        self._scheduler = scheduler
        self._transcriber = Transcriber(resident, scheduler, decoder_pool, admission=admission)
        self._background: set[asyncio.Task[Any]] = set()

    async def Health(self, request: pb.HealthMessage, context: Context) -> pb.Reply:  # noqa: N802 - the wire's name
        if self._scheduler.dead:
            await refuse(context, EngineFailure())
        self._resident.prepare()  # whoever asks for health wants a model next
        return pb.Reply(message=b"OK")

    @answered
    async def LoadModel(self, request: pb.ModelOptions, context: Context) -> pb.Result:  # noqa: N802
        try:
            # a client whose deadline ends does not end the load: it will ask again and find it done
            await self._finishing(self._resident.load(messages.load_options(request)))
        except LoadRefused as refusal:
            _log.warning("LoadModel refused: %s", refusal)
            _stats().finish = type(refusal).__name__
            return pb.Result(success=False, message=str(refusal))
        return pb.Result(success=True, message=LOADED)

    @answered
    async def AudioTranscription(self, request: pb.TranscriptRequest, context: Context) -> pb.TranscriptResult:  # noqa: N802
        stats = _stats()
        self._check_model(request.ModelIdentity)
        remaining_s = context.time_remaining()
        until_s = inf if remaining_s is None else time.monotonic() + remaining_s
        options = messages.transcribe_options(request)
        transcript = await self._transcriber.transcribe(request.dst, options, stats, until_s)
        stats.language, stats.segments = transcript.language, len(transcript.segments)
        stats.warnings = transcript.warnings
        return await in_thread_if_long(transcript.duration_s, lambda: messages.transcript_result(transcript))

    async def AudioTranscriptionStream(  # noqa: N802
        self, request: pb.TranscriptRequest, context: Context
    ) -> AsyncIterator[pb.TranscriptStreamResponse]:
        async with _statuses("AudioTranscriptionStream", context):
            self._check_model(request.ModelIdentity)  # the model first, then what it lacks
            raise CapabilityMissing("AudioTranscriptionStream")
        yield pb.TranscriptStreamResponse()  # type: ignore[unreachable] # makes this a stream

    async def AudioTranscriptionLive(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.TranscriptLiveRequest], context: Context
    ) -> AsyncIterator[pb.TranscriptLiveResponse]:
        async with _statuses("AudioTranscriptionLive", context):
            self._check_model()
            raise CapabilityMissing("AudioTranscriptionLive")
        yield pb.TranscriptLiveResponse()  # type: ignore[unreachable] # makes this a stream

    @answered
    async def Status(self, request: pb.HealthMessage, context: Context) -> pb.StatusResponse:  # noqa: N802
        states = pb.StatusResponse.State
        if self._resident.loading or self._scheduler.busy:
            state = states.BUSY
        else:
            state = states.READY if self._resident.identity else states.UNINITIALIZED
        return messages.status_response(state, self._resident.weight_bytes)

    @answered
    async def Free(self, request: pb.HealthMessage, context: Context) -> pb.Result:  # noqa: N802
        await self._finishing(self._resident.free())
        return pb.Result(success=True)

    def _check_model(self, requested: str = "") -> None:
        """Raises ModelNotLoaded or IdentityMismatch: then the gateway loads the model again, whatever else is wrong."""
        self._resident.current()
        check_identity(loaded=self._resident.identity, requested=requested)

    async def _finishing(self, work: Any) -> None:
        """Await `work`, which goes on to its end even if this call is cancelled."""
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        await asyncio.shield(task)


def _stats() -> RequestStats:
    """This call's, opened by wire/request_log.py."""
    return current() or RequestStats()
