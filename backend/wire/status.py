"""The gRPC status of each error, in one table; a test checks that no error is missing.

UNAVAILABLE is never used, because the gateway would evict the model everywhere. FAILED_PRECONDITION and
NOT_FOUND make the gateway drop this replica, so each is reserved for the one error that means it.
"""

from __future__ import annotations

from math import ceil
from typing import NoReturn

from grpc import StatusCode

from backend import errors
from backend.audio.decoding.causes import kind_of
from backend.process.request_stats import current_stats
from backend.wire.request_log import trailing
from backend.wire.wrapping import Context

# Seconds of a `retry-after`. What waits now is an estimate of when there is room. A process that stops is replaced by
# its gateway within the grace; a caller that tries sooner may reach another replica. Chosen, not measured.
_RETRY_S, _MAX_RETRY_S, _RETRY_STOPPING_S = 2, 600, 5
_TEMPORARY = (errors.Overloaded, errors.TooLittleAudioMemory)  # OutOfMemory is of the request itself, and stays

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


def retry_after_s(error: errors.AsrError, backlog_s: float) -> int:
    """Whole seconds after which the same request may be served; 0 where trying again does not help.

    `backlog_s`: how long what waits will take; 0 if that is not known.
    """
    if isinstance(error, errors.Stopping):
        return _RETRY_STOPPING_S
    return min(max(ceil(backlog_s), _RETRY_S), _MAX_RETRY_S) if isinstance(error, _TEMPORARY) else 0


async def refuse(context: Context, error: errors.AsrError, backlog_s: float = 0.0) -> NoReturn:
    """End the call with the error's status and message, and note the error in the call's stats.

    `backlog_s`: see retry_after_s, whose seconds are in the trailing metadata `retry-after`.
    """
    if stats := current_stats():
        stats.finish = type(error).__name__
        stats.refusal = kind_of(error.cause) if isinstance(error, errors.UndecodableAudio) else ""
        if after_s := retry_after_s(error, backlog_s):
            stats.retry_after_s = after_s
            context.set_trailing_metadata(trailing(stats))  # before abort, which sends what is set
    await context.abort(status_of(error), str(error))
