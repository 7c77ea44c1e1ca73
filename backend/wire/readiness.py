"""Readiness by grpc.health.v1: whether a transcription would be accepted now. (LocalAI's Health is liveness.)

The status is SERVING exactly while a model is loaded, for the server ("") and for the service by its name. From the
start of the shutdown it is NOT_SERVING, and watches end, because they would keep the server up until its grace period
is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1 import health_pb2_grpc as rpc

from backend.wire import backend_pb2
from backend.wire.wrapping import Context

SERVICES = ("", backend_pb2.DESCRIPTOR.services_by_name["Backend"].full_name)


class Readiness(rpc.HealthServicer):  # type: ignore[misc] # the package has no types
    """Replaces the package's servicer, which ends no watch at shutdown and holds a lock while it writes to a client."""

    def __init__(self) -> None:
        self._ready = False
        self._stopping = False
        self._changed = asyncio.Event()  # replaced at each change

    def set(self, ready: bool) -> None:
        """Set the status; it stays NOT_SERVING once the shutdown has begun. For the event loop's thread only."""
        self._ready = ready and not self._stopping
        self._changed.set()
        self._changed = asyncio.Event()

    def enter_graceful_shutdown(self) -> None:
        """Set NOT_SERVING for good, and end all watches."""
        self._stopping = True
        self.set(False)

    def _response(self, service: str) -> pb.HealthCheckResponse:
        states = pb.HealthCheckResponse
        if service not in SERVICES:
            return pb.HealthCheckResponse(status=states.SERVICE_UNKNOWN)
        return pb.HealthCheckResponse(status=states.SERVING if self._ready else states.NOT_SERVING)

    async def Check(  # noqa: N802 - the wire's name
        self, request: pb.HealthCheckRequest, context: Context
    ) -> pb.HealthCheckResponse:
        if request.service not in SERVICES:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return self._response(request.service)

    async def List(self, request: pb.HealthListRequest, context: Context) -> pb.HealthListResponse:  # noqa: N802
        return pb.HealthListResponse(statuses={service: self._response(service) for service in SERVICES})

    async def Watch(  # noqa: N802
        self, request: pb.HealthCheckRequest, context: Context
    ) -> AsyncIterator[pb.HealthCheckResponse]:
        sent = None
        while True:
            changed, stopping, response = self._changed, self._stopping, self._response(request.service)
            if response != sent:
                yield response
                sent = response
            if stopping:
                return
            await changed.wait()
