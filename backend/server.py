"""Builds the objects, serves, stops gracefully: the only file that knows every room.

The port is up before anything heavy is imported: the models' libraries come with the first LoadModel.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

from backend.audio.decoding.pool import DecoderPool
from backend.errors import EngineDead, Fatal, StallSecondsRefused
from backend.options import LoadOptions
from backend.pipeline.admission import Admission
from backend.process.address import parse, why_not
from backend.process.request_stats import Totals
from backend.serving.protocols import Aligner, Loader, Recognizer
from backend.serving.resident import Resident
from backend.serving.scheduler import DEVICE_LOST, Scheduler
from backend.wire.auth import BearerToken, SmallRequests
from backend.wire.backend_pb2_grpc import add_BackendServicer_to_server
from backend.wire.drain import Drain
from backend.wire.readiness import Readiness
from backend.wire.request_log import RequestLog
from backend.wire.servicer import BackendServicer

if TYPE_CHECKING:
    from backend.wire.metrics import Listener

_log = logging.getLogger(__name__)

_MESSAGE_BYTES = 50 * 1024 * 1024  # the gateway's own limit, both ways
_GRACE_S = 10.0  # of the 15 s between the gateway's SIGTERM and its SIGKILL
_CLOSE_S = 0.5  # for connections to be closed; nothing is served on them any more
_LAST_S = 12.5  # after the signal, or the engine's end, the process has gone, whatever hangs
_LAST_WORDS_S = 0.5  # of these for the cause to be written: nobody may be reading the log any more
_DYING_S = 1.0  # for the replies to those whom a dead engine leaves
_STALL_S, _LEAST_STALL_S = 300.0, 5.0  # a step of a large model on a small CPU may read minutes of sound
_WATCHED_EVERY_S = 0.5


class LazyLoader:
    """The real loader, imported when it is first used (in the thread that uses it).

    After the import, and not beside it, a child that decodes is started: the two together made Health late.
    """

    def __init__(self, decoder_pool: DecoderPool) -> None:
        self._decoder_pool = decoder_pool

    def _real(self) -> Loader:
        from backend.engine.loader import CheckpointLoader

        return CheckpointLoader()

    def prepare(self) -> None:
        self._real()
        self._decoder_pool.warm_up()

    def inspect(self, options: LoadOptions) -> None:
        self._real().inspect(options)

    def load_recognizer(self, options: LoadOptions) -> Recognizer:
        return self._real().load_recognizer(options)

    def load_aligner(self, options: LoadOptions) -> Aligner:
        return self._real().load_aligner(options)

    def reclaim(self) -> None:
        if "backend.engine.loader" in sys.modules:  # else there is nothing to reclaim, and seconds of import to pay
            self._real().reclaim()


@dataclass(frozen=True)
class Serving:
    """A server that serves, and what has to end with it."""

    server: grpc.aio.Server
    port: int
    scheduler: Scheduler
    readiness: Readiness
    drain: Drain
    listener: Listener | None

    async def stop(self, grace_s: float) -> None:
        """Take no new work, let what runs end within the grace, break off the rest."""
        self.readiness.enter_graceful_shutdown()
        await self.drain.drain(grace_s)
        await self.server.stop(min(grace_s, _CLOSE_S))
        self.scheduler.stop()
        if self.listener is not None:
            await asyncio.to_thread(self.listener.close)


async def start(
    address: str,
    loader: Loader,
    decoder_pool: DecoderPool,
    token: str = "",
    metrics: str = "",
    admission: Admission | None = None,
) -> Serving:
    """Serve on `address`, and metrics on theirs if there is one. Raises Fatal, before any call is answered."""
    parse(address)
    totals, drain = Totals(), Drain()
    server = grpc.aio.server(
        interceptors=[RequestLog(totals), *([BearerToken(token)] if token else []), drain, SmallRequests()],
        options=[
            ("grpc.so_reuseport", 0),  # a taken port is an error, not a silent share
            ("grpc.max_send_message_length", _MESSAGE_BYTES),
            ("grpc.max_receive_message_length", _MESSAGE_BYTES),
        ],
    )
    scheduler, readiness = Scheduler(), Readiness()

    def on_state_change(loaded: bool) -> None:
        readiness.set(loaded)
        scheduler.forget_model()

    resident = Resident(loader, on_state_change=on_state_change, on_device_lost=lambda: scheduler.fail(DEVICE_LOST))
    add_BackendServicer_to_server(  # type: ignore[no-untyped-call]
        BackendServicer(resident, scheduler, decoder_pool, admission or Admission()), server
    )
    add_HealthServicer_to_server(readiness, server)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise why_not(address) from error
    listener = _listen(metrics, totals, scheduler, resident) if metrics else None
    await server.start()
    return Serving(server, port, scheduler, readiness, drain, listener)


def _listen(metrics: str, totals: Totals, scheduler: Scheduler, resident: Resident) -> Listener:
    from backend.wire.metrics import Listener  # only where it is wanted

    listener = Listener(metrics, totals, scheduler, resident)
    _log.info("metrics on the loopback, port %d", listener.port)
    return listener


def run(
    address: str, environment: Mapping[str, str], loader: Loader | None = None, admission: Admission | None = None
) -> int:
    """`serve` to its end. The exit code; of what ends it, the cause is the last line of the log."""
    try:
        # not asyncio.run: at its end it would wait for a load that still runs in a thread
        asyncio.new_event_loop().run_until_complete(serve(address, environment, loader, admission))
    except Fatal as error:
        _log.error("%s", error)
        return 1
    return 0


async def serve(
    address: str, environment: Mapping[str, str], loader: Loader | None = None, admission: Admission | None = None
) -> None:
    """Serve until SIGTERM or SIGINT, then let what runs end within the grace and break off the rest.

    The same signal once more changes nothing, since the gateway may send it to the process and to its group; but who
    presses Ctrl-C twice does not want to wait. `loader` and `admission` are for trials: other models and bounds, the
    very same server.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    token = environment.get("LOCALAI_GRPC_AUTH_TOKEN", "")
    metrics = environment.get("QWEN_ASR_METRICS", "").strip()
    stall_s = _stall_s(environment.get("QWEN_ASR_STALL_SECONDS", ""))
    decoder_pool = DecoderPool()
    serving = await start(address, loader or LazyLoader(decoder_pool), decoder_pool, token, metrics, admission)

    def interrupted() -> None:
        if stop.is_set():
            serving.drain.cut()
        stop.set()

    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, interrupted)
    host = address.rpartition(":")[0]
    _log.info("listening on %s:%d, pid %d", host, serving.port, os.getpid())
    dead = asyncio.create_task(_death(serving.scheduler, stall_s))
    await asyncio.wait({dead, asyncio.create_task(stop.wait())}, return_when=asyncio.FIRST_COMPLETED)
    if dead.done():
        cause = EngineDead(dead.result())
        _leave_at_last(1, cause)
        serving.scheduler.fail(dead.result())
        await serving.stop(_DYING_S)
        decoder_pool.close()
        raise cause
    _leave_at_last(0)
    _log.info("stopping: running requests have %g s to end", _GRACE_S)
    await serving.stop(_GRACE_S)
    decoder_pool.close()
    _log.info("stopped")


def _leave_at_last(code: int, cause: EngineDead | None = None) -> None:
    """The process goes when it had time enough: a thread may hang in the kernel, at a mount whose server has gone."""
    timers = [threading.Timer(_LAST_S, os._exit, (code,))]
    if cause is not None:
        timers.append(threading.Timer(_LAST_S - _LAST_WORDS_S, _log.error, ("%s", cause)))
    for timer in timers:
        timer.daemon = True
        timer.start()


async def _death(scheduler: Scheduler, stall_s: float) -> str:
    """Why the engine will never answer again, as soon as that is known."""
    while not scheduler.dead:
        if scheduler.stalled_s > stall_s:
            return f"it has been at one step for {stall_s:g} s (QWEN_ASR_STALL_SECONDS)"
        await asyncio.sleep(_WATCHED_EVERY_S)
    return scheduler.dead


def _stall_s(setting: str) -> float:
    """Raises StallSecondsRefused."""
    try:
        seconds = float(setting.strip() or _STALL_S)
    except ValueError:
        seconds = 0.0
    if not seconds >= _LEAST_STALL_S:  # true for nan, too
        raise StallSecondsRefused(_LEAST_STALL_S)
    return seconds
