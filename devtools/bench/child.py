"""A backend as a child process, whichever it is: ours through run.sh, an earlier one of ours, or the usual way.

It is started as the gateway does it: a free port, stdin closed, a process group of its own, stderr in a file. It takes
any command, because the bench starts several kinds, and knows when each of its steps was done.
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
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import grpc

from backend.wire import backend_pb2 as pb
from backend.wire import backend_pb2_grpc
from devtools.bench.shapes import ROOT
from devtools.transcribe.child import CHANNEL, GRACE_S, free_port

_BIND_S = 120.0  # much longer than the gateway waits: how long it takes is what is measured
_LOAD_S, _ANSWER_S = 3600.0, 4 * 3600.0
_POLL_S = 0.004


class Failed(Exception):
    """A side of the bench did not start, or did not do what it was asked; the message is for the table."""


@dataclass(frozen=True)
class System:
    """One side of the bench. `dtype` and `quantization`: LoadModel's; `options` go with every load.

    `engine`: the command of its engine alone (inside.py), empty where it has none. `note`: goes with its every row.
    """

    name: str
    command: tuple[str, ...]
    folder: Path = ROOT
    dtype: str = ""
    quantization: str = ""
    options: tuple[str, ...] = ()
    engine: tuple[str, ...] = (sys.executable, "-m", "devtools.bench.inside")
    note: str = ""

    def load_options(self, model: Path, aligner: Path | None = None, more: Sequence[str] = ()) -> pb.ModelOptions:
        named = [f"forced_aligner:{aligner}"] if aligner else []
        return pb.ModelOptions(
            Model=model.name,
            ModelFile=str(model),
            DType=self.dtype,
            Quantization=self.quantization,
            Options=[*named, *self.options, *more],
        )


@dataclass(frozen=True)
class Reply:
    """An answer, after so many seconds. `warning`: the backend's own word on what it could not do or did twice."""

    result: pb.TranscriptResult
    took_s: float
    warning: str = field(default="")

    @property
    def text(self) -> str:
        return self.result.text


class Child:
    """`with Child(system) as child:` is up: `up_s` is how long that took, from the start of the process."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.up_s = 0.0
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - closed in __exit__
        port = free_port()
        environment = {name: value for name, value in os.environ.items() if name != "LOCALAI_GRPC_AUTH_TOKEN"}
        self._address = f"127.0.0.1:{port}"
        self._began = time.monotonic()
        self._process = subprocess.Popen(
            [*system.command, "--addr", self._address],
            cwd=system.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        self._channel: grpc.Channel | None = None

    def __enter__(self) -> Child:
        try:
            self._wait_until_up()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    def load(self, options: pb.ModelOptions) -> float:
        """Seconds of LoadModel. Raises Failed with the backend's own cause."""
        began = time.monotonic()
        try:
            result = self._stub.LoadModel(options, timeout=_LOAD_S)
        except grpc.RpcError as error:
            raise Failed(self._cause(error)) from error
        if not result.success:
            raise Failed(f"refused: {result.message}")
        return time.monotonic() - began

    def ask(self, audio: Path, *, words: bool = False) -> Reply:
        """The transcript of a recording whose language is to be detected. Raises Failed."""
        granularities = ["word", "segment"] if words else []
        request = pb.TranscriptRequest(dst=str(audio), diarize=True, timestamp_granularities=granularities)
        began = time.monotonic()
        try:
            result, call = self._stub.AudioTranscription.with_call(request, timeout=_ANSWER_S)
        except grpc.RpcError as error:
            raise Failed(self._cause(error)) from error
        took_s = time.monotonic() - began
        trailing = dict(call.trailing_metadata() or ())
        return Reply(result, took_s, str(trailing.get("x-asr-warning", "")))

    def weight_bytes(self) -> int:
        """What the backend itself says its weights take. Raises Failed where it does not say it."""
        try:
            return int(self._stub.Status(pb.HealthMessage(), timeout=10.0).memory.total)
        except grpc.RpcError as error:
            raise Failed(self._cause(error)) from error

    def _wait_until_up(self) -> None:
        """A bare socket is tried first: a refused gRPC channel waits before it tries again."""
        host, _, port = self._address.rpartition(":")
        while True:
            if self._process.poll() is not None or time.monotonic() - self._began > _BIND_S:
                raise Failed(f"did not start: {self.last_words()}")
            try:
                socket.create_connection((host, int(port)), timeout=1.0).close()
                break
            except OSError:
                time.sleep(_POLL_S)
        self._channel = grpc.insecure_channel(self._address, options=CHANNEL)
        self._stub = backend_pb2_grpc.BackendStub(self._channel)  # type: ignore[no-untyped-call] # generated
        reply = self._stub.Health(pb.HealthMessage(), timeout=_BIND_S, wait_for_ready=True)
        self.up_s = time.monotonic() - self._began
        if reply.message != b"OK":
            raise Failed(f"Health answered {reply.message!r}")

    def last_words(self) -> str:
        """The last line of its log, which is the human cause by contract."""
        size = os.fstat(self._log.fileno()).st_size
        lines = os.pread(self._log.fileno(), size, 0).decode(errors="replace").splitlines()
        return next((line for line in reversed(lines) if line.strip()), "it said nothing")

    def _cause(self, error: grpc.RpcError) -> str:
        if self._process.poll() is not None:
            return f"ended: {self.last_words()}"
        return f"{error.code().name}: {error.details()}"

    def _stop(self) -> None:
        if self._channel is not None:
            self._channel.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._log.close()


RUN = ("bash", "-c", 'exec bash "$0" "$@" <&-')  # `<&-` closes stdin, which Popen cannot; exec keeps the pid
OURS = System("ours", (*RUN, str(ROOT / "run.sh")))
TODAY = System("today", (sys.executable, "-m", "devtools.bench.today"))
