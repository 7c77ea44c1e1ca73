"""The backend as a child process, started and stopped as the gateway does it.

run.sh on a free port of the loopback, stdin closed, its own process group, stderr to a file. It is up when Health
answers, and whoever leaves the `with` block leaves no process behind.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

import grpc

from backend.wire import backend_pb2, backend_pb2_grpc

RUN = Path(__file__).resolve().parents[2] / "run.sh"
BIND_S = 40.0  # the gateway's own patience until the port is up
GRACE_S = 15.0  # and between SIGTERM and SIGKILL
POLL_S = 0.05

CHANNEL = (
    ("grpc.max_send_message_length", 50 * 1024 * 1024),
    ("grpc.max_receive_message_length", 50 * 1024 * 1024),
    ("grpc.enable_http_proxy", 0),  # a proxy has no way to this machine's loopback
    # grpc waits a second and more after a refused connection; while the child starts, that is all we would wait for
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 50),
)


class BackendFailed(Exception):
    """The backend did not start, or is gone."""


class Backend:
    """`with Backend() as backend:` has a stub that answers; `wait_until_up` first."""

    def __init__(self) -> None:
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - closed in __exit__
        address = f"127.0.0.1:{free_port()}"
        # `<&-` closes stdin, which Popen cannot; exec keeps the pid that Popen knows
        self._process = subprocess.Popen(
            ["bash", "-c", 'exec bash "$0" "$@" <&-', str(RUN), "--addr", address],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,  # Ctrl-C at the terminal is ours to handle
        )
        self._channel = grpc.insecure_channel(address, options=CHANNEL)
        self.stub = backend_pb2_grpc.BackendStub(self._channel)  # type: ignore[no-untyped-call] # generated without types
        token = os.environ.get("LOCALAI_GRPC_AUTH_TOKEN", "")  # the child inherits it, so it asks for it
        self.metadata = (("authorization", f"Bearer {token}"),) if token else ()

    def __enter__(self) -> Backend:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()
        self._signal(signal.SIGTERM)
        try:
            self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._process.wait()
        self._log.close()

    def wait_until_up(self) -> None:
        """Returns when Health answers; raises BackendFailed when the process dies first, or after 40 s."""
        deadline = time.monotonic() + BIND_S
        while time.monotonic() < deadline:
            self.check_alive()
            try:
                self.stub.Health(backend_pb2.HealthMessage(), timeout=1.0, metadata=self.metadata)
            except grpc.RpcError:
                time.sleep(POLL_S)
            else:
                return
        raise BackendFailed(f"the backend did not answer within {BIND_S:.0f} s")

    @property
    def pid(self) -> int:
        """Of the backend itself: run.sh has become Python."""
        return self._process.pid

    def check_alive(self, patience_s: float = 0.0) -> None:
        """Raises BackendFailed with the last line of its log, which is the cause by contract, when it has ended."""
        try:
            code = self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            return
        lines = self.log_lines()
        raise BackendFailed(lines[-1] if lines else f"the backend ended with exit code {code} and said nothing")

    def log_lines(self) -> list[str]:
        """What it has logged so far, without empty lines. Read by offset: the child shares the file's position."""
        size = os.fstat(self._log.fileno()).st_size
        text = os.pread(self._log.fileno(), size, 0).decode(errors="replace")
        return [line for line in text.splitlines() if line.strip()]

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            os.killpg(self._process.pid, number)


def free_port() -> int:
    """A port that nobody had a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
