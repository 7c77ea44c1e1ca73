"""One passage on its way: sent to a server, and once more to another one if the first fails."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from backend.errors import AsrError, EngineFailure, RecognitionServersFailed
from backend.remote.connection import Connection
from backend.remote.faults_of_servers import CANCELLED, TIMED_OUT, UNREACHABLE, Fault, ServerFailure
from backend.remote.remote_answer import RemoteAnswer
from backend.remote.server_client import ServerClient
from backend.remote.servers import Server, Servers
from backend.serving.protocols import Recognition, Utterance

_log = logging.getLogger(__name__)

_MOST_TRIES = 2


class PassageCall:
    """`utterance` in a thread of its own, which ends with it. `result`: None until it has ended.

    `answer`: what the present server has said so far.
    """

    def __init__(
        self,
        utterance: Utterance,
        servers: Servers,
        client: ServerClient,
        on_end: Callable[[PassageCall], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_end` is called in the thread, unless the call was cancelled."""
        self.utterance = utterance
        self.answer: RemoteAnswer | None = None
        self.result: Recognition | AsrError | None = None
        self._servers = servers
        self._client = client
        self._on_end = on_end
        self._clock = clock
        self._connection: Connection | None = None
        self._deadline = 0.0
        self._cancelled = False
        self._lock = threading.Lock()  # guards the three above

    def start(self) -> None:
        threading.Thread(target=self._run, name="passage", daemon=True).start()

    def cancel(self) -> None:
        """End it without a result; a server that works on it sees its connection closed."""
        with self._lock:
            self._cancelled = True
            if self._connection is not None:
                self._connection.abort(CANCELLED)
        self._servers.wake()

    def end_if_late(self) -> None:
        """Give the present server up if its time is over."""
        with self._lock:
            if self._connection is not None and self._clock() > self._deadline:
                self._connection.abort(TIMED_OUT)

    def _run(self) -> None:
        try:
            self.result = self._recognise()
        except Exception:  # noqa: BLE001 - a fault of ours: its passage fails, and the session goes on
            _log.exception("a passage failed on its way to a server")
            self.result = EngineFailure()
        if not self._cancelled:
            self._on_end(self)

    def _recognise(self) -> Recognition | AsrError:
        tried: list[Server] = []
        fault = UNREACHABLE
        while len(tried) < _MOST_TRIES:
            server = self._servers.acquire(tried, lambda: not self._cancelled)
            if server is None:
                break
            tried.append(server)
            result = self._try(server)
            if isinstance(result, Recognition):
                return result
            fault = result
        return RecognitionServersFailed(fault.cause)

    def _try(self, server: Server) -> Recognition | Fault:
        """The recognition by this server, or what was wrong with it."""
        fault: Fault | None = CANCELLED  # of an error of ours: the server is not to blame
        try:
            if not server.model:
                self._client.prove(server)
            answer = self._client.new_answer(self.utterance)
            connection = self._client.connection(server)
            with self._lock:
                if self._cancelled:
                    return CANCELLED
                self._connection, self._deadline = connection, self._clock() + self._client.timeout_s
            self.answer = answer
            self._client.receive(server, self.utterance, answer, connection, lambda: self._servers.heard(server))
            recognition = answer.recognition()
            fault = None
            return recognition
        except ServerFailure as failure:
            fault = failure.fault
            if fault is not CANCELLED:
                _log.warning("%s %s", server, fault.cause)
            return fault
        finally:
            with self._lock:
                self._connection = None
            self._servers.release(server, fault)
