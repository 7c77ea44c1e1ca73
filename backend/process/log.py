"""How the log looks: one line of JSON for a request that ended, plain sentences for everything else.

Rules: a line of JSON begins with `{`, and no other line does. Whatever is logged, it cannot forge a line: control
characters are escaped, and the lines of a trace are set in. A trace says nothing that a client sent (redaction.py). A
line that is written for a request names it. The gateway shows the last line of a process that dies at its start to
people, so such causes are sentences.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any

from backend.process.redaction import written
from backend.process.request_stats import current

REQUESTS = "backend.requests"  # the logger whose messages are the lines of JSON

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class LogLines(logging.Formatter):
    def __init__(self) -> None:
        super().__init__(_FORMAT)

    def format(self, record: logging.LogRecord) -> str:
        if record.name == REQUESTS:
            return record.getMessage()
        record.exc_text = None  # logging keeps here how another handler has written the trace
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        stats = current()
        return _escaped(super().formatMessage(record) + (f" [request {stats.request}]" if stats else ""))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        return "\n".join(f"    {_escaped(line)}" for line in written(ei[1]).split("\n"))


def to_stderr() -> None:
    """Everything that is logged from now on. stderr may be a full device: a lost line must not stop the service."""
    logging.raiseExceptions = False
    stderr = logging.StreamHandler(sys.stderr)
    stderr.setFormatter(LogLines())
    logging.basicConfig(level=logging.INFO, handlers=[stderr])


def write_request(line: dict[str, Any]) -> None:
    """`line` with the time, as JSON in ASCII."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    logging.getLogger(REQUESTS).info("%s", json.dumps({"time": now, **line}))


def _escaped(text: str) -> str:
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)
