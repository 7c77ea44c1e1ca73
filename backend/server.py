"""Builds the objects, serves, stops gracefully: the only file that knows every room.

The port is up before anything heavy is imported: the models' libraries come with the first LoadModel.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping

import grpc

from backend.audio.guard import Guard
from backend.engine.recognizer import Aligner, Loader, Recognizer
from backend.engine.resident import Resident
from backend.engine.scheduler import Scheduler
from backend.options import LoadOptions
from backend.wire.backend_pb2_grpc import add_BackendServicer_to_server
from backend.wire.guard import BearerToken
from backend.wire.servicer import BackendServicer

_log = logging.getLogger(__name__)

_MESSAGE_BYTES = 50 * 1024 * 1024  # the gateway's own limit, both ways
_GRACE_S = 10.0  # of the 15 s between the gateway's SIGTERM and its SIGKILL


class LazyLoader:
    """The real loader, imported when it is first used (in the thread that uses it).

    After the import, and not beside it, a child that decodes is started: the two together made Health late.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def _real(self) -> Loader:
        from backend.engine.loading import CheckpointLoader

        return CheckpointLoader()

    def prepare(self) -> None:
        self._real()
        self._guard.expect()

    def inspect(self, options: LoadOptions) -> None:
        self._real().inspect(options)

    def load_recognizer(self, options: LoadOptions) -> Recognizer:
        return self._real().load_recognizer(options)

    def load_aligner(self, options: LoadOptions) -> Aligner:
        return self._real().load_aligner(options)

    def reclaim(self) -> None:
        if "backend.engine.loading" in sys.modules:  # else there is nothing to reclaim, and seconds of import to pay
            self._real().reclaim()


class AddressTaken(Exception):
    def __init__(self, address: str) -> None:
        super().__init__(f"cannot listen on {address}: the address is taken or not this machine's")


async def start(address: str, loader: Loader, guard: Guard, token: str = "") -> tuple[grpc.aio.Server, int, Scheduler]:
    """A serving server, the port it is bound to, and the scheduler behind it. Raises AddressTaken."""
    server = grpc.aio.server(
        interceptors=[BearerToken(token)] if token else [],
        options=[
            ("grpc.so_reuseport", 0),  # a taken port is an error, not a silent share
            ("grpc.max_send_message_length", _MESSAGE_BYTES),
            ("grpc.max_receive_message_length", _MESSAGE_BYTES),
        ],
    )
    scheduler = Scheduler()
    add_BackendServicer_to_server(  # type: ignore[no-untyped-call]
        BackendServicer(Resident(loader), scheduler, guard), server
    )
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise AddressTaken(address) from error
    await server.start()
    return server, port, scheduler


async def serve(address: str, environment: Mapping[str, str]) -> None:
    """Serve until SIGTERM or SIGINT, then let what runs end within the grace and cancel the rest."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    token = environment.get("LOCALAI_GRPC_AUTH_TOKEN", "")
    guard = Guard()
    server, port, scheduler = await start(address, LazyLoader(guard), guard, token)
    host = address.rpartition(":")[0]
    _log.info("listening on %s:%d, pid %d", host, port, os.getpid())
    await stop.wait()
    _log.info("stopping: running requests have %g s to end", _GRACE_S)
    await server.stop(_GRACE_S)
    scheduler.stop()
    guard.close()
    _log.info("stopped")
