"""The sides of the bench, and a server of each: ours, ours at another git revision, or the package's usual way."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import grpc

from backend.wire import backend_pb2 as pb
from devtools.bench.measurement import Failed
from devtools.procfs import INSPECTABLE
from devtools.server_process import ROOT, RUN_SH, ServerProcess
from devtools.transcribe.client import RequestFailed, transcribe

_BIND_S = 120.0  # longer than the gateway waits: this time is a result
_ANSWER_S = 4 * 3600.0
_EXPORT = re.compile(r'^export (\w+)="\$\{\1:-(\w+)\}"', re.MULTILINE)  # in run.sh


@dataclass(frozen=True)
class System:
    """`command` starts its server, `worker` its engine alone (engine_worker.py; empty if it has none).

    `dtype` and `quantization` are LoadModel's. `note` stands at each of its rows.
    """

    name: str
    command: tuple[str, ...]
    worker: tuple[str, ...] = ()
    folder: Path = ROOT
    dtype: str = ""
    quantization: str = ""
    note: str = ""


OURS = System("ours", (*RUN_SH, str(ROOT / "run.sh")), (sys.executable, "-m", "devtools.bench.engine_worker"))
BASELINE = System("today", (sys.executable, "-m", "devtools.bench.baseline_server"))


def environment_of_run_sh(folder: Path = ROOT) -> dict[str, str]:
    """What run.sh sets where the caller has not: how libraries use threads and memory."""
    return dict(_EXPORT.findall((folder / "run.sh").read_text()))


class Reply(NamedTuple):
    """`warning`: the backend's own, "" for none."""

    text: str
    took_s: float
    warning: str


class Side(Protocol):
    """Whatever transcribes a recording: a server of ours, the baseline's, or a peer."""

    @property
    def system(self) -> System: ...

    def transcribe(self, audio: Path) -> Reply:
        """Raises Failed or ServerFailed."""
        ...


class Server(ServerProcess):
    """`with Server(system) as server:` has answered Health, `up_s` seconds after its process started."""

    def __init__(self, system: System) -> None:
        super().__init__(system.command, folder=system.folder, environment=INSPECTABLE, bind_timeout_s=_BIND_S)
        self.system = system

    def __enter__(self) -> Server:
        super().__enter__()
        return self

    def load_model(self, model: Path, aligner: Path | None = None, more: Sequence[str] = ()) -> float:
        """Seconds of LoadModel, with `more` of its options. Raises ServerFailed."""
        request = pb.ModelOptions(Model=model.name, ModelFile=str(model), DType=self.system.dtype)
        request.Quantization = self.system.quantization
        request.Options.extend([*([f"forced_aligner:{aligner}"] if aligner else []), *more])
        return self.load(request)

    def transcribe(self, audio: Path, *, words: bool = False) -> Reply:
        """The transcript of a recording, its language to be detected. Raises Failed or ServerFailed."""
        request = pb.TranscriptRequest(dst=str(audio), diarize=True)
        request.timestamp_granularities.extend(["word", "segment"] if words else [])
        began = time.monotonic()
        try:
            result, warnings = transcribe(self, request, _ANSWER_S)
        except RequestFailed as error:
            raise Failed(str(error)) from error
        return Reply(result.text, time.monotonic() - began, "; ".join(warnings))

    def seconds(self, audio: Path, *, words: bool = False) -> float:
        """How long `transcribe` takes."""
        return self.transcribe(audio, words=words).took_s

    def weight_bytes(self) -> int:
        """What the backend itself says. Raises Failed."""
        try:
            return int(self.stub.Status(pb.HealthMessage(), timeout=10.0).memory.total)
        except grpc.RpcError as error:
            raise Failed(self.cause_of(error)) from error
