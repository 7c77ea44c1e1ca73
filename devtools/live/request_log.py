"""The request lines of a server's log, which say what no reply says: the detector's time, lags, rewrites."""

from __future__ import annotations

import json
import time
from typing import Any

from devtools.server_process import ServerProcess

_PATIENCE_S = 2.0


def log_of(server: ServerProcess, method: str, least: int = 0) -> list[dict[str, Any]]:
    """The lines of the calls of `method`, in order; waits for `least` of them, which are written after the replies."""
    until = time.monotonic() + _PATIENCE_S
    while True:
        lines = [json.loads(line) for line in server.log_lines() if line.startswith("{") and f'"{method}"' in line]
        if len(lines) >= least or time.monotonic() > until:
            return [line for line in lines if line.get("method") == method]
        time.sleep(0.01)
