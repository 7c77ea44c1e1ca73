"""The format of the log: a line of JSON for each request that ended, plain sentences for everything else.

- A line of JSON begins with `{`; no other line does.
- No message can forge a line: control characters are escaped, and the lines of a traceback are indented.
- A traceback holds nothing that a client sent (redaction.py).
- A line that is logged while a request is served ends with the request's id.
- Causes that end the process are sentences: if it dies while starting, the gateway shows its last line to people.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any

from backend.process.redaction import redacted_traceback
from backend.process.request_stats import current_stats

REQUESTS = "backend.requests"  # the logger of the JSON lines

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class LogLines(logging.Formatter):
    """Formats log records by the rules of this module."""

    def __init__(self) -> None:
        super().__init__(_FORMAT)

    def format(self, record: logging.LogRecord) -> str:
        if record.name == REQUESTS:
            return record.getMessage()
        record.exc_text = None  # logging caches here the unredacted traceback of another handler
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        stats = current_stats()
        return _escaped(super().formatMessage(record) + (f" [request {stats.request}]" if stats else ""))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        return "\n".join(f"    {_escaped(line)}" for line in redacted_traceback(ei[1]).split("\n"))


def to_stderr() -> None:
    """Send the log to stderr from now on.

    stderr may be a full device: a line that cannot be written is dropped, and the service goes on.
    """
    logging.raiseExceptions = False
    stderr = logging.StreamHandler(sys.stderr)
    stderr.setFormatter(LogLines())
    logging.basicConfig(level=logging.INFO, handlers=[stderr])


def write_request(line: dict[str, Any]) -> None:
    """Log `line` and the current time (UTC) as one line of JSON in ASCII."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    logging.getLogger(REQUESTS).info("%s", json.dumps({"time": now, **line}))


def _escaped(text: str) -> str:
    return _CONTROL.sub(lambda match: repr(match[0])[1:-1], text)
