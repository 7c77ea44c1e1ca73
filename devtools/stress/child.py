"""A server under trial as a child process, with the gateway's manners: a free port, stdin closed, a group of its own.

Unlike the demo's child this one may be asked for its end: its exit code, its last words, whether a child of its own
outlived it. Whoever leaves the `with` block leaves no process behind.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import grpc

from backend.wire import backend_pb2 as pb
from backend.wire import backend_pb2_grpc
from devtools.stress import processes
from devtools.stress.plan import Plan
from devtools.transcribe import child as demo_child
from devtools.transcribe.child import free_port

ROOT = Path(__file__).resolve().parents[2]
DEMO_MODEL, DEMO_ALIGNER = ROOT / "test/models/asr", ROOT / "test/models/aligner"
VICTIM = (sys.executable, "-m", "devtools.stress.victim")
RUN = ("bash", "-c", 'exec bash "$0" "$@" <&-', str(ROOT / "run.sh"))  # `<&-` closes stdin, which Popen cannot
# The demo waits for a refused connection briefly, and so for a slow one: on a busy machine that loses requests.
CHANNEL = tuple((name, value) for name, value in demo_child.CHANNEL if "backoff" not in name)
_BIND_S, _LOAD_S = 40.0, 120.0
_POLL_S = 0.01


class Failed(Exception):
    """A server under trial did not start or load; the message is for the table."""


class Child:
    """`with Child(command) as child:` is up. `stderr`: a file of the caller's instead of one that is kept here."""

    def __init__(
        self,
        command: Sequence[str] = VICTIM,
        *arguments: str,
        stderr: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - closed in __exit__
        self.address = f"127.0.0.1:{free_port()}"
        inherited = {name: value for name, value in os.environ.items() if name != "LOCALAI_GRPC_AUTH_TOKEN"}
        self.process = subprocess.Popen(
            [*command, "--addr", self.address, *arguments],
            cwd=ROOT,
            env={**inherited, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._log if stderr is None else stderr,
            start_new_session=True,
        )
        self._channel = grpc.insecure_channel(self.address, options=CHANNEL)
        self.stub = backend_pb2_grpc.BackendStub(self._channel)  # type: ignore[no-untyped-call] # generated without types

    def __enter__(self) -> Child:
        try:
            self._wait_until_up()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self._channel.close()
        members = [self.pid, *processes.children(self.pid)]
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self._log.close()

    @property
    def pid(self) -> int:
        """Of the server itself: run.sh has become Python."""
        return self.process.pid

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def load_plan(self, plan: Plan, *options: str, patience_s: float = _LOAD_S) -> None:
        """Raises Failed. No detector: noise is to reach the recogniser whole."""
        named = ["vad:off", "forced_aligner:shares", *options]
        self.load(pb.ModelOptions(Model=plan.as_name(), Options=named), patience_s)

    def load_demo(self, *options: str) -> None:
        """Raises Failed."""
        named = [f"forced_aligner:{DEMO_ALIGNER}", *options]
        self.load(pb.ModelOptions(Model="demo", ModelFile=str(DEMO_MODEL), Options=named, Threads=os.cpu_count() or 1))

    def load(self, options: pb.ModelOptions, patience_s: float = _LOAD_S) -> None:
        """Raises Failed."""
        try:
            result = self.stub.LoadModel(options, timeout=patience_s)
        except grpc.RpcError as error:
            raise Failed(f"LoadModel: {error.code().name}") from error
        if not result.success:
            raise Failed(f"LoadModel refused: {result.message}")

    def ended(self, patience_s: float) -> int | None:
        """The exit code; None if it still runs after so long."""
        try:
            return self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            return None

    def last_words(self) -> str:
        """The last line of its log that is not empty."""
        text = os.pread(self._log.fileno(), os.fstat(self._log.fileno()).st_size, 0).decode(errors="replace")
        return next((line for line in reversed(text.splitlines()) if line.strip()), "")

    def _wait_until_up(self) -> None:
        """A bare socket is tried first: a refused gRPC channel waits before it tries again."""
        host, _, port = self.address.rpartition(":")
        until = time.monotonic() + _BIND_S
        while True:
            if not self.is_alive or time.monotonic() > until:
                raise Failed(f"did not start: {self.last_words() or 'it said nothing'}")
            try:
                socket.create_connection((host, int(port)), timeout=1.0).close()
                break
            except OSError:
                time.sleep(_POLL_S)
        self.stub.Health(pb.HealthMessage(), timeout=_BIND_S, wait_for_ready=True)
