"""Composition root: builds the objects, serves, shuts down gracefully. The only module that imports every room.

The port is open before torch and the models' libraries are imported, which the first LoadModel does.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

from backend.audio.decoding.pool import DecoderPool
from backend.errors import EngineDead, Fatal
from backend.live.live_transcriber import LiveTranscriber
from backend.options.load_options import LoadOptions
from backend.pipeline.admission import Admission
from backend.process import inspection, parent_watch
from backend.process.address import listen_failure, refuse_if_half_taken
from backend.process.countdown import Countdown
from backend.process.operator_token import operator_token
from backend.process.request_stats import Totals
from backend.serving.idle.release import IdleRelease
from backend.serving.protocols import Aligner, Kind, Loader, Recognizer
from backend.serving.resident import Resident
from backend.serving.scheduler import DEVICE_LOST, Scheduler
from backend.serving.stall_watchdog import engine_failure, stall_limit_s
from backend.wire.auth import BearerToken, SmallRequests
from backend.wire.backend_pb2_grpc import add_BackendServicer_to_server
from backend.wire.drain import Drain
from backend.wire.readiness import Readiness
from backend.wire.request_log import RequestLog
from backend.wire.servicer import BackendServicer

if TYPE_CHECKING:
    from backend.wire.metrics_listener import Listener

_log = logging.getLogger(__name__)

_MAX_MESSAGE_BYTES = 50 * 1024 * 1024  # the gateway's own limit, in both directions
_GRACE_S = 10.0  # of the 15 s between the gateway's SIGTERM and its SIGKILL
_CLOSE_S = 0.5  # to close connections on which the statuses of the last calls may still be on their way
_CLOSE_UNUSED_S = 0.05  # without such calls: a peer that is slow, or speaks no HTTP/2, would delay the end for nothing
_FORCED_EXIT_S = 12.5  # after the signal or the engine's failure the process exits, whatever still hangs
_LOG_CAUSE_S = 0.5  # of those, to write the cause: the log may be a pipe that is no longer read
_FAILED_ENGINE_GRACE_S = 1.0  # to send the errors of the calls that a failed engine leaves
_MIN_PING_INTERVAL_MS = 5000  # grpc allows one in five minutes; proxies and probes send one in about ten seconds


class LazyLoader:
    """The loaders, each imported at its first use, in the thread that uses it: with `engine_url` there is no torch.

    `inspect` starts a decoder process after the import and not beside it: both at once delayed Health.
    """

    def __init__(self, decoder_pool: DecoderPool) -> None:
        self._decoder_pool = decoder_pool
        self._loader: Loader | None = None

    def _real(self) -> Loader:
        from backend.engine.loader import CheckpointLoader

        self._loader = self._loader or CheckpointLoader()
        return self._loader

    def inspect(self, options: LoadOptions) -> Kind:
        if options.engine_urls:
            from backend.remote.remote_loader import inspect_remote

            kind = inspect_remote(options)
        else:
            if self._loader is None:
                from backend.checkpoint.glance import refuse_at_a_glance

                refuse_at_a_glance(options)
            kind = self._real().inspect(options)
        self._decoder_pool.warm_up()
        return kind

    def load_recognizer(self, options: LoadOptions) -> Recognizer:
        if options.engine_urls:
            from backend.remote.remote_loader import load_remote

            return load_remote(options)
        return self._real().load_recognizer(options)

    def load_aligner(self, options: LoadOptions) -> Aligner:
        return self._real().load_aligner(options)

    def reclaim(self, *, idle: bool = False) -> None:
        if "backend.engine.loader" in sys.modules:  # otherwise nothing was loaded, and the import would take seconds
            self._real().reclaim(idle=idle)


@dataclass(frozen=True)
class Serving:
    """A running server and the parts that are stopped with it."""

    server: grpc.aio.Server
    port: int
    scheduler: Scheduler
    resident: Resident
    readiness: Readiness
    drain: Drain
    live: LiveTranscriber
    listener: Listener | None

    async def stop(self, grace_s: float) -> None:
        """Graceful shutdown: refuse new calls, wait `grace_s` seconds for running calls, cancel the rest."""
        self.readiness.enter_graceful_shutdown()
        self.live.finish_all()
        close_s = _CLOSE_S if await self.drain.drain(grace_s) else _CLOSE_UNUSED_S
        await self.server.stop(min(grace_s, close_s))
        self.scheduler.stop()
        if self.listener is not None:
            self.listener.close()  # in no thread, because none may be left; it takes at most half a second


async def start(
    address: str,
    loader: Loader,
    decoder_pool: DecoderPool,
    token: str = "",
    metrics: str = "",
    admission: Admission | None = None,
) -> Serving:
    """Serve on `address` (HOST:PORT), and metrics on the address `metrics` if given.

    Raises Fatal (CannotListen, MetricsAddressRefused) before any call is answered.
    """
    refuse_if_half_taken(address)
    totals, drain = Totals(), Drain()
    server = grpc.aio.server(
        interceptors=[RequestLog(totals), *([BearerToken(token)] if token else []), drain, SmallRequests()],
        options=[
            ("grpc.so_reuseport", 0),  # a port in use is an error, and not shared silently
            ("grpc.http2.min_ping_interval_without_data_ms", _MIN_PING_INTERVAL_MS),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
            ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
        ],
    )
    scheduler, readiness, admission = Scheduler(), Readiness(), admission or Admission()

    def on_state_change(loaded: bool) -> None:
        readiness.set(loaded)
        scheduler.forget_model()
        if not loaded:
            live.finish_all()  # a stream of hours must not keep the weights

    resident = Resident(loader, on_state_change=on_state_change, on_device_lost=lambda: scheduler.fail(DEVICE_LOST))
    live = LiveTranscriber(resident, scheduler, admission)
    add_BackendServicer_to_server(  # type: ignore[no-untyped-call]
        BackendServicer(resident, scheduler, decoder_pool, admission, live), server
    )
    add_HealthServicer_to_server(readiness, server)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise listen_failure(address) from error
    listener = _listen(metrics, totals, scheduler, resident, live) if metrics else None
    await server.start()
    return Serving(server, port, scheduler, resident, readiness, drain, live, listener)


def _listen(metrics: str, totals: Totals, scheduler: Scheduler, resident: Resident, live: LiveTranscriber) -> Listener:
    from backend.wire.metrics_listener import Listener  # imports prometheus_client

    listener = Listener(metrics, totals, scheduler, resident, live)
    _log.info("metrics on the loopback, port %d", listener.port)
    return listener


def run(
    address: str, environment: Mapping[str, str], loader: Loader | None = None, admission: Admission | None = None
) -> int:
    """Run `serve` and return the exit code. If it failed, the last line of the log is the cause."""
    inspection.forbid(environment)
    try:
        # Not asyncio.run, which would wait at its end for a load that still runs in a thread.
        asyncio.new_event_loop().run_until_complete(serve(address, environment, loader, admission))
    except Fatal as error:
        _log.error("%s", error)
        return 1
    return 0


async def serve(
    address: str, environment: Mapping[str, str], loader: Loader | None = None, admission: Admission | None = None
) -> None:
    """Serve until SIGTERM, SIGHUP or SIGINT, then shut down gracefully. Raises Fatal.

    A second SIGTERM changes nothing, because the gateway may send it both to the process and to its group. A second
    SIGINT (Ctrl-C) cancels the running calls. `loader` and `admission` let the stress tests serve other models and
    limits.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    forced_exit, last_words = Countdown(os._exit), Countdown(_log.error)
    token = operator_token(environment)
    metrics = environment.get("QWEN_ASR_METRICS", "").strip()
    stall_s = stall_limit_s(environment.get("QWEN_ASR_STALL_SECONDS", ""))
    decoder_pool = DecoderPool()
    serving = await start(address, loader or LazyLoader(decoder_pool), decoder_pool, token, metrics, admission)

    def interrupted() -> None:
        if stop.is_set():
            serving.drain.cancel_calls()
        stop.set()

    for number, handler in ((signal.SIGTERM, stop.set), (signal.SIGHUP, stop.set), (signal.SIGINT, interrupted)):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup starts programs
            loop.add_signal_handler(number, handler)
    host = address.rpartition(":")[0]
    _log.info("listening on %s:%d, pid %d", host, serving.port, os.getpid())
    reasons = ["stopped"]

    def leave(reason: str) -> None:
        reasons[:] = [f"stopped: {reason}"]
        stop.set()

    is_watched = parent_watch.interval_s(environment) is not None  # then a gateway has started this process
    idle = asyncio.create_task(IdleRelease(serving.resident, leave if is_watched else None).run())
    failed = asyncio.create_task(engine_failure(serving.scheduler, stall_s))
    await asyncio.wait({failed, asyncio.create_task(stop.wait())}, return_when=asyncio.FIRST_COMPLETED)
    if failed.done():
        cause = EngineDead(failed.result())
        # A thread may hang in the kernel, on a mount of a dead server; the log may be a pipe that is no longer read.
        forced_exit.start(_FORCED_EXIT_S, 1)
        last_words.start(_FORCED_EXIT_S - _LOG_CAUSE_S, "%s", cause)
        serving.scheduler.fail(failed.result())
        await serving.stop(_FAILED_ENGINE_GRACE_S)
        decoder_pool.close()
        raise cause
    forced_exit.start(_FORCED_EXIT_S, 0)
    _log.info("stopping: running requests have %g s to end", _GRACE_S)
    await serving.stop(_GRACE_S)
    decoder_pool.close()
    idle.cancel()
    _log.info(reasons[0])
