"""The gRPC status of each error, in one table; a test checks that no error is missing.

UNAVAILABLE is never used, because the gateway would evict the model everywhere. FAILED_PRECONDITION and
NOT_FOUND make the gateway drop this replica, so each is reserved for the one error that means it.
"""

from __future__ import annotations

from typing import NoReturn

from grpc import StatusCode

from backend import errors
from backend.audio.decoding.causes import kind_of
from backend.process.request_stats import current_stats
from backend.wire.wrapping import Context

STATUS: dict[type[errors.AsrError], StatusCode] = {
    errors.InvalidRequest: StatusCode.INVALID_ARGUMENT,
    errors.LoadRefused: StatusCode.INVALID_ARGUMENT,  # LoadModel answers it as Result(success=false) instead
    errors.ModelNotLoaded: StatusCode.FAILED_PRECONDITION,
    errors.IdentityMismatch: StatusCode.NOT_FOUND,
    errors.Unauthenticated: StatusCode.UNAUTHENTICATED,
    errors.CapabilityMissing: StatusCode.UNIMPLEMENTED,
    errors.Overloaded: StatusCode.RESOURCE_EXHAUSTED,
    errors.TooLittleAudioMemory: StatusCode.RESOURCE_EXHAUSTED,
    errors.FallingBehind: StatusCode.RESOURCE_EXHAUSTED,
    errors.Stopping: StatusCode.RESOURCE_EXHAUSTED,  # CANCELLED would say that the client had cancelled the call
    errors.OutOfMemory: StatusCode.RESOURCE_EXHAUSTED,
    errors.Cancelled: StatusCode.CANCELLED,
    errors.DeadlineTooShort: StatusCode.DEADLINE_EXCEEDED,
    errors.EngineFailure: StatusCode.INTERNAL,
    errors.AlignerMissing: StatusCode.INTERNAL,
    errors.AlignerUnavailable: StatusCode.INTERNAL,  # never sent: a coarse transcript and a warning instead
}


def status_of(error: errors.AsrError) -> StatusCode:
    """The status of the error's class, or of the nearest base class in the table."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


async def refuse(context: Context, error: errors.AsrError) -> NoReturn:
    """End the call with the error's status and message, and note the error in the call's stats."""
    if stats := current_stats():
        stats.finish = type(error).__name__
        stats.refusal = kind_of(error.cause) if isinstance(error, errors.UndecodableAudio) else ""
    await context.abort(status_of(error), str(error))
