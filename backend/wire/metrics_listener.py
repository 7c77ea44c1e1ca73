"""Serves the metrics on the loopback interface, switched on with QWEN_ASR_METRICS.

- The listener accepts only the loopback interface: it has no token, and starts a thread for each connection. It has
  one page, /metrics.
- This module, and with it prometheus_client, is imported only if metrics are switched on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server

from backend.errors import CannotListen, MetricsAddressRefused
from backend.live.live_transcriber import LiveTranscriber
from backend.process.request_stats import Totals
from backend.serving.resident import Resident
from backend.serving.scheduler import Scheduler
from backend.wire.metrics import BackendCollector

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def address_of(value: str) -> tuple[str, int]:
    """Host and port of `9109`, `127.0.0.1:9109` or `[::1]:9109`. Raises MetricsAddressRefused."""
    host, _, port = value.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or _LOOPBACK[0]
    if host not in _LOOPBACK or not (port.isascii() and port.isdecimal()) or int(port) > 65535:
        raise MetricsAddressRefused
    return host, int(port)


class Listener:
    """The HTTP server that answers scrapes. Its constructor raises CannotListen or MetricsAddressRefused."""

    def __init__(
        self, address: str, totals: Totals, scheduler: Scheduler, resident: Resident, live: LiveTranscriber
    ) -> None:
        host, port = address_of(address)
        registry = CollectorRegistry()
        registry.register(BackendCollector(totals, scheduler, resident, live))
        ProcessCollector(registry=registry)
        self._server: WSGIServer
        self._thread: threading.Thread
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as error:
            raise CannotListen(f"{host}:{port} for QWEN_ASR_METRICS") from error
        self._server.set_app(_on_its_page(self._server.get_app()))  # type: ignore[arg-type] # no stubs for its app
        self.port: int = self._server.server_address[1]

    def close(self) -> None:
        """Stop the server and wait for its thread, which takes at most half a second."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _on_its_page(metrics: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """The library's application answers every path with all metrics, also one that was meant for another server."""

    def application(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        if environ.get("PATH_INFO") == "/metrics":
            return metrics(environ, start_response)
        start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
        return [b"the metrics are at /metrics\n"]

    return application
