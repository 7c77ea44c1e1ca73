"""A backend as a child process, started and stopped as the gateway does it.

A free port of the loopback, stdin closed, a process group of its own, stderr in a file. Inside
`with ServerProcess() as server:` Health has answered; leaving the block leaves no process behind.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import grpc

from backend.doctor.places import ROOT
from backend.errors import TokenRefused
from backend.process.operator_token import TOKEN_VARIABLE, operator_token
from backend.wire import backend_pb2 as pb
from backend.wire import backend_pb2_grpc

RUN_SH = ("bash", "-c", 'exec bash "$0" "$@" <&-')  # `<&-` closes stdin, which Popen cannot; exec keeps the pid
BIND_TIMEOUT_S = 40.0  # how long the gateway waits for the port
GRACE_S = 15.0  # what the gateway leaves between SIGTERM and SIGKILL
_POLL_S = 0.004
_CHANNEL = (
    ("grpc.max_send_message_length", 50 * 1024 * 1024),
    ("grpc.max_receive_message_length", 50 * 1024 * 1024),
    ("grpc.enable_http_proxy", 0),  # a proxy has no way to this machine's loopback
)


class ServerFailed(Exception):
    """The server did not start, did not load, or has ended; the message is its own cause."""


class ServerProcess:
    """One server. `command` gets `--addr HOST:PORT` and `arguments` appended; by default this checkout's run.sh.

    `environment` is added to the inherited one, without the gateway's token unless `with_token`. `stderr`: a descriptor
    of the caller's in place of the file that `log_lines` reads. The constructor starts the process and does not wait.
    """

    def __init__(
        self,
        command: Sequence[str] = (*RUN_SH, str(ROOT / "run.sh")),
        arguments: Sequence[str] = (),
        *,
        folder: Path = ROOT,
        environment: Mapping[str, str] | None = None,
        with_token: bool = False,
        stderr: int | None = None,
        bind_timeout_s: float = BIND_TIMEOUT_S,
    ) -> None:
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - closed in __exit__
        self._last_lines: list[str] = []
        self._bind_timeout_s = bind_timeout_s
        self.address = f"127.0.0.1:{free_port()}"
        self.up_s = 0.0  # from the start of the process to its first Health
        try:
            token = operator_token(os.environ) if with_token else ""
        except TokenRefused as refused:
            raise ServerFailed(str(refused)) from refused
        self.metadata = (("authorization", f"Bearer {token}"),) if token else ()
        inherited = {name: value for name, value in os.environ.items() if with_token or name != TOKEN_VARIABLE}
        self._began = time.monotonic()
        self.process = subprocess.Popen(  # noqa: S603 - run.sh, or a command of the tools
            [*command, "--addr", self.address, *arguments],
            cwd=folder,
            env={**inherited, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._log if stderr is None else stderr,
            start_new_session=True,
        )
        self.channel = grpc.insecure_channel(self.address, options=_CHANNEL)
        self.stub = backend_pb2_grpc.BackendStub(self.channel)  # type: ignore[no-untyped-call] # generated without types

    def __enter__(self) -> ServerProcess:
        try:
            self.wait_until_up()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Of the server itself: run.sh has become Python."""
        return self.process.pid

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def wait_until_up(self) -> None:
        """Until Health answers. Raises ServerFailed when the process ends first, or after `bind_timeout_s`."""
        host, _, port = self.address.rpartition(":")
        until = self._began + self._bind_timeout_s
        while True:  # a bare socket first: a refused gRPC channel waits a second before it tries again
            self.check_alive()
            try:
                socket.create_connection((host, int(port)), timeout=1.0).close()
                break
            except OSError:
                if time.monotonic() > until:
                    raise ServerFailed(f"the backend did not answer within {self._bind_timeout_s:.0f} s") from None
                time.sleep(_POLL_S)
        left_s = max(until - time.monotonic(), 1.0)
        reply = self.stub.Health(pb.HealthMessage(), timeout=left_s, wait_for_ready=True, metadata=self.metadata)
        self.up_s = time.monotonic() - self._began
        if reply.message != b"OK":
            raise ServerFailed(f"Health answered {reply.message!r}")

    def load(self, options: pb.ModelOptions, timeout_s: float = 3600.0) -> float:
        """LoadModel; the seconds that it took. Raises ServerFailed with the backend's own cause."""
        began = time.monotonic()
        try:
            result = self.stub.LoadModel(options, timeout=timeout_s, metadata=self.metadata)
        except grpc.RpcError as error:
            raise ServerFailed(f"the model was not loaded: {self.cause_of(error)}") from error
        if not result.success:
            raise ServerFailed(f"the model was not loaded: {result.message}")
        return time.monotonic() - began

    def transcript(self, audio: str, *, words: bool = False, timeout_s: float = 3600.0) -> pb.TranscriptResult:
        """The transcript of a recording. Raises ServerFailed with status and message."""
        request = pb.TranscriptRequest(
            dst=audio, diarize=True, timestamp_granularities=["word", "segment"] if words else []
        )
        try:
            reply: pb.TranscriptResult = self.stub.AudioTranscription(
                request, timeout=timeout_s, metadata=self.metadata
            )
        except grpc.RpcError as error:
            raise ServerFailed(f"the transcription failed: {self.cause_of(error)}") from error
        return reply

    def health_s(self, timeout_s: float) -> float:
        """Seconds until Health answers, on a connection of its own as the gateway's; infinite without an answer."""
        began = time.monotonic()
        try:
            with grpc.insecure_channel(self.address, options=_CHANNEL) as channel:
                stub = backend_pb2_grpc.BackendStub(channel)  # type: ignore[no-untyped-call] # generated without types
                stub.Health(pb.HealthMessage(), timeout=timeout_s, metadata=self.metadata)
        except grpc.RpcError:
            return math.inf
        return time.monotonic() - began

    def cause_of(self, error: grpc.RpcError) -> str:
        """Status code and message; a process that has ended says more than its broken connection."""
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            try:
                self.check_alive(patience_s=1.0)
            except ServerFailed as cause:
                return f"UNAVAILABLE: the server has ended: {cause}"
        return f"{error.code().name}: {error.details()}"

    def check_alive(self, patience_s: float = 0.0) -> None:
        """Raises ServerFailed with the last line of the log, the cause by contract, if the process has ended."""
        code = self.wait(patience_s)
        if code is not None:
            raise ServerFailed(self.last_line() or f"the backend ended with exit code {code} and said nothing")

    def wait(self, patience_s: float) -> int | None:
        """The exit code; None if the process still runs after so long."""
        try:
            return self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            return None

    def log_lines(self) -> list[str]:
        """The log so far, without empty lines; after `close`, the log up to then."""
        if self._log.closed:
            return self._last_lines
        # by offset: the child shares the file's position
        size = os.fstat(self._log.fileno()).st_size
        text = os.pread(self._log.fileno(), size, 0).decode(errors="replace")
        return [line for line in text.splitlines() if line.strip()]

    def last_line(self) -> str:
        """The last line of the log that is not empty; "" if there is none."""
        return next(reversed(self.log_lines()), "")

    def signal(self, number: signal.Signals) -> None:
        """To the whole process group, as the gateway does it."""
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            os.killpg(self.pid, number)

    def close(self, grace_s: float = GRACE_S) -> None:
        """SIGTERM, after `grace_s` SIGKILL; children that outlived the server are killed, too, being of its group."""
        self._last_lines = self.log_lines()
        self.channel.close()
        self.signal(signal.SIGTERM)
        self.wait(grace_s)
        self.signal(signal.SIGKILL)
        self.process.wait()
        self._log.close()


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
