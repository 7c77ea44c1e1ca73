"""Which gRPC status each error becomes. One table; a test holds it complete.

UNAVAILABLE is never used: the gateway would evict the model everywhere. FAILED_PRECONDITION and NOT_FOUND make it
drop the replica, so they are kept for exactly the two errors that mean it.
"""

from __future__ import annotations

from typing import Any

import grpc
from grpc import StatusCode

from backend import errors
from backend.process.request_stats import current

STATUS: dict[type[errors.AsrError], StatusCode] = {
    errors.InvalidRequest: StatusCode.INVALID_ARGUMENT,
    errors.LoadRefused: StatusCode.INVALID_ARGUMENT,  # LoadModel answers it as Result(success=false) instead
    errors.ModelNotLoaded: StatusCode.FAILED_PRECONDITION,
    errors.IdentityMismatch: StatusCode.NOT_FOUND,
    errors.Unauthenticated: StatusCode.UNAUTHENTICATED,
    errors.CapabilityMissing: StatusCode.UNIMPLEMENTED,
    errors.Overloaded: StatusCode.RESOURCE_EXHAUSTED,
    errors.Stopping: StatusCode.RESOURCE_EXHAUSTED,  # shown to the user; CANCELLED would mean that he had left
    errors.OutOfMemory: StatusCode.RESOURCE_EXHAUSTED,
    errors.Cancelled: StatusCode.CANCELLED,
    errors.DeadlineTooShort: StatusCode.DEADLINE_EXCEEDED,
    errors.EngineFailure: StatusCode.INTERNAL,
    errors.AlignerUnavailable: StatusCode.INTERNAL,  # answered with a coarse transcript and a warning instead
}


def status_of(error: errors.AsrError) -> StatusCode:
    """The status of the error's class, or of the nearest class above it that the table names."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


async def refuse(context: grpc.aio.ServicerContext[Any, Any], error: errors.AsrError) -> None:
    """End the call with the error's status and message. Does not return."""
    if stats := current():
        stats.finish = type(error).__name__
    await context.abort(status_of(error), str(error))
