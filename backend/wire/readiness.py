"""grpc.health.v1: whether a transcription would be taken now. The gateway's own Health says that the process lives.

Rules: SERVING exactly while a model is loaded, for the server ("") and for the service by its name. At the stop it is
NOT_SERVING for good, and watches end, for they would hold the server until its grace is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import grpc
from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1 import health_pb2_grpc as rpc

from backend.wire import backend_pb2

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

SERVICES = ("", backend_pb2.DESCRIPTOR.services_by_name["Backend"].full_name)


class Readiness(rpc.HealthServicer):  # type: ignore[misc] # the package has no types
    """The package's own servicer ends no watch at the stop, and holds a lock while it writes to a client."""

    def __init__(self) -> None:
        self._ready = False
        self._stopping = False
        self._changed = asyncio.Event()  # another one after each change

    def set(self, ready: bool) -> None:
        """For the event loop's thread. After the stop has begun, nothing is ready any more."""
        self._ready = ready and not self._stopping
        self._changed.set()
        self._changed = asyncio.Event()

    def enter_graceful_shutdown(self) -> None:
        self._stopping = True
        self.set(False)

    def _state_of(self, service: str) -> pb.HealthCheckResponse:
        states = pb.HealthCheckResponse
        if service not in SERVICES:
            return pb.HealthCheckResponse(status=states.SERVICE_UNKNOWN)
        return pb.HealthCheckResponse(status=states.SERVING if self._ready else states.NOT_SERVING)

    async def Check(  # noqa: N802 - the wire's name
        self, request: pb.HealthCheckRequest, context: Context
    ) -> pb.HealthCheckResponse:
        if request.service not in SERVICES:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return self._state_of(request.service)

    async def List(self, request: pb.HealthListRequest, context: Context) -> pb.HealthListResponse:  # noqa: N802
        return pb.HealthListResponse(statuses={service: self._state_of(service) for service in SERVICES})

    async def Watch(  # noqa: N802
        self, request: pb.HealthCheckRequest, context: Context
    ) -> AsyncIterator[pb.HealthCheckResponse]:
        told = None
        while True:
            changed, stopping, state = self._changed, self._stopping, self._state_of(request.service)
            if state != told:
                yield state
                told = state
            if stopping:
                return
            await changed.wait()
