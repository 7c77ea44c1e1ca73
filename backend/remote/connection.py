"""One HTTP request to a server, on a connection of its own, which another thread can end at any time.

- The standard library's client: it gives away its socket, so that closing it ends a request in every phase, before the
  server has answered, too. A connection for each request is never one that the server has just closed.
- It follows no redirect and asks no proxy: the API key goes to the server that the operator named and nowhere else.
- What a server says beside its answer is never read: neither the reason nor the body of an error.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from ssl import SSLCertVerificationError
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from backend.remote.faults_of_servers import (
    CUT_OFF,
    FOREIGN,
    TIMED_OUT,
    UNREACHABLE,
    UNTRUSTED,
    Fault,
    ServerFailure,
    fault_of_status,
)
from backend.thresholds import CONNECT_TIMEOUT_S

_MAX_LINE_BYTES = 1 << 20  # an event holds a token or a few
_MAX_JSON_BYTES = 1 << 20


class Connection:
    """A connection to the server at `url`. Used by one thread, but for `abort`; `with` closes it."""

    def __init__(self, url: str, headers: Mapping[str, str], timeout_s: float) -> None:
        """`timeout_s`: how long the server may say nothing."""
        parts = urlsplit(url)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._connection = kind(parts.hostname or "", parts.port, timeout=CONNECT_TIMEOUT_S)
        self._path = parts.path
        self._headers = headers
        self._timeout_s = timeout_s
        self._lock = threading.Lock()  # guards the two below
        self._socket: socket.socket | None = None
        self._aborted: Fault | None = None
        self._response: HTTPResponse | None = None

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._response is not None:
            self._response.close()
        self._connection.close()

    def abort(self, fault: Fault) -> None:
        """End the request with this fault, from any thread and in any phase."""
        with self._lock:
            self._aborted = self._aborted or fault
            if self._socket is not None:
                with suppress(OSError):  # the request has just ended
                    # not its own shutdown: that of TLS also drops the state which the other thread reads with
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def get_json(self, path: str) -> Any:
        """What the server answers to GET `path`, None if that is no JSON. Raises ServerFailure."""
        with self._faults():
            body = self._ask("GET", path).read(_MAX_JSON_BYTES)
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            return None

    def check(self, path: str) -> None:
        """GET `path`. Raises ServerFailure unless the status is 200."""
        with self._faults():
            self._ask("GET", path)

    def post_for_lines(self, path: str, body: bytes) -> Iterator[bytes]:
        """POST JSON; the lines of the event stream that is the answer. Raises ServerFailure."""
        with self._faults():
            response = self._ask("POST", path, body)
            if not response.headers.get("Content-Type", "").startswith("text/event-stream"):
                raise ServerFailure(FOREIGN)
        while True:
            with self._faults(CUT_OFF):
                line = response.readline(_MAX_LINE_BYTES)
            if not line:
                return
            if not line.endswith(b"\n") and len(line) >= _MAX_LINE_BYTES:
                raise ServerFailure(FOREIGN)
            yield line

    def _ask(self, method: str, path: str, body: bytes | None = None) -> HTTPResponse:
        self._connection.connect()
        with self._lock:
            self._socket = self._connection.sock
        self._socket.settimeout(self._timeout_s)
        self._raise_if_aborted()
        content = {} if body is None else {"Content-Type": "application/json", "Accept": "text/event-stream"}
        with suppress(BrokenPipeError, ConnectionResetError):  # it has answered before it read all
            self._connection.request(method, self._path + path, body, {**self._headers, **content})
        self._response = self._connection.getresponse()
        if self._response.status != 200:
            raise ServerFailure(fault_of_status(self._response.status))
        return self._response

    def _raise_if_aborted(self) -> None:
        with self._lock:
            if self._aborted is not None:
                raise ServerFailure(self._aborted)

    @contextmanager
    def _faults(self, lost: Fault = UNREACHABLE) -> Iterator[None]:
        """What the network raises inside becomes a ServerFailure, without its text. `lost`: of a lost connection."""
        try:
            yield
        except SSLCertVerificationError:
            raise ServerFailure(UNTRUSTED) from None
        except (OSError, HTTPException, ValueError) as error:  # ValueError: a socket that another thread has shut down
            self._raise_if_aborted()
            raise ServerFailure(TIMED_OUT if isinstance(error, TimeoutError) else lost) from None
        self._raise_if_aborted()
