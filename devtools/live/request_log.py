"""The request lines of a server's log, which say what no reply says: the detector's time, lags, rewrites."""

from __future__ import annotations

import json
import time
from typing import Any

from devtools.server_process import ServerFailed, ServerProcess

_PATIENCE_S = 2.0


def log_of(server: ServerProcess, method: str, least: int = 0) -> list[dict[str, Any]]:
    """The lines of the calls of `method`, in order; waits for `least` of them, which are written after the replies."""
    until = time.monotonic() + _PATIENCE_S
    while True:
        found = _lines(server, "method", method)
        if len(found) >= least or time.monotonic() > until:
            return found
        time.sleep(0.01)


def line_of(server: ServerProcess, request: str) -> dict[str, Any]:
    """The line of the call with the id `request`, which is waited for. Raises ServerFailed where it does not come."""
    until = time.monotonic() + _PATIENCE_S
    while not (found := _lines(server, "request", request)):
        if time.monotonic() > until:
            raise ServerFailed(f"the server's log has no line of the request {request!r}")
        time.sleep(0.01)
    return found[-1]


def _lines(server: ServerProcess, key: str, value: str) -> list[dict[str, Any]]:
    """Those in which the key has this value."""
    lines = (json.loads(line) for line in server.log_lines() if line.startswith("{") and f'"{value}"' in line)
    return [line for line in lines if line.get(key) == value]
