"""The cases of the fuzzing: what is sent, which answers are right, and the server that they are sent to.

One case at a time, so time, memory and a crash belong to one input. Meanwhile a bystander, a thread, transcribes a
recording of its own: its replies stay exact. A case that failed is saved as JSON and can be sent again.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import grpc

from backend.wire import backend_pb2 as pb
from devtools.procfs import MIB, PeakMemory
from devtools.stress.client import FULL, OK, Server, contract_violations, noise_requests
from devtools.stress.fakes import UNCLEAN
from devtools.stress.plan import Plan

Expected = Literal["good", "bad", "either"]
TIME_LIMIT_S, MEMORY_LIMIT_MIB = 5.0, 512
FILE_NAME = "upload-of-a-client"  # no error text may contain it: a client controls it
_EVICTING = ("connection refused", "connection reset", "no such host", "model not loaded")  # for the gateway
_TIMEOUT_S = 120.0  # for one input: a hang shows as its duration
_BYSTANDER_S = 0.1  # between the bystander's requests


@dataclass(frozen=True)
class Case:
    kind: str  # its row in the table
    name: str
    expected: Expected
    content: bytes = b""  # of a file that is sent
    path: str = ""  # or a path, with {folder} for the run's folder
    request: Mapping[str, Any] = field(default_factory=dict)  # other fields of TranscriptRequest, or of ModelOptions
    load: bool = False
    text: str = ""  # of the reply, if known

    @staticmethod
    def of_json(text: str) -> Case:
        """Raises ValueError, KeyError or TypeError. Other fields (seed, failures) are ignored."""
        saved = json.loads(text)
        values = {each.name: saved[each.name] for each in fields(Case)}
        return Case(**{**values, "content": base64.b64decode(values["content"])})


@dataclass(frozen=True)
class Reply:
    """`status`: the name of a gRPC code, or `refused` for a load. `growth_bytes`: memory above that before the case."""

    status: str
    took_s: float = 0.0
    growth_bytes: int = 0
    details: str = ""
    text: str = ""
    violations: tuple[str, ...] = ()
    has_died: bool = False


def save(case: Case, folder: Path, number: int, seed: int, failures: Sequence[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{seed}-{number}.json"
    content = base64.b64encode(case.content).decode()
    saved = {**asdict(case), "content": content, "seed": seed, "number": number, "failures": failures}
    path.write_text(json.dumps(saved, indent=1) + "\n", encoding="utf-8")
    return path


def failures(case: Case, reply: Reply) -> list[str]:
    """What is wrong with the reply."""
    refusals = {"refused"} if case.load else {"INVALID_ARGUMENT", FULL}
    allowed = {"good": {OK}, "bad": refusals, "either": {OK, *refusals}}[case.expected]
    is_transcript = reply.status == OK and OK in allowed and not case.load
    wrong = {
        f"{reply.status} instead of {' or '.join(sorted(allowed))}: {reply.details}": reply.status not in allowed,
        "OK without having been transcribed": is_transcript and not reply.text,  # silence has a text, too
        "a control token reached the recogniser": is_transcript and reply.text == UNCLEAN,
        "not the samples of the file": is_transcript and bool(case.text) and reply.text != case.text,
        **dict.fromkeys(reply.violations, is_transcript),
        "the server died": reply.has_died,
        f"took {reply.took_s:.1f} s": reply.took_s > TIME_LIMIT_S,
        f"cost {reply.growth_bytes // MIB} MiB": reply.growth_bytes > MEMORY_LIMIT_MIB * MIB,
        "the error text makes the gateway evict the model": any(text in reply.details.lower() for text in _EVICTING),
        "the error text repeats the file's name": not case.load and FILE_NAME in reply.details,
    }
    return [problem for problem, is_there in wrong.items() if is_there]


class FuzzRunner:
    """`restarts` counts crashes. `inexact`: wrong replies to the bystander, except requests that a restart broke, and
    those between two models, which get FAILED_PRECONDITION or the options of the other model.
    """

    def __init__(self, folder: Path, saved: Path, seed: int = 1) -> None:
        self.folder, self._saved, self._seed = folder, saved, seed
        self._stack = ExitStack()
        self._plain, self._bystander = noise_requests(folder, [98, 97], 1.0, steps=1)
        self.sent: list[tuple[str, Reply, str]] = []  # name, reply, and failure with the file of the saved case
        self.answered, self.inexact = 0, list[str]()  # of the bystander
        self.restarts, self._loads, self._is_loading = 0, 0, False
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run_bystander, daemon=True)

    def __enter__(self) -> FuzzRunner:
        self._start()
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._done.set()
        self._thread.join()
        self._stack.close()

    def send(self, case: Case) -> None:
        """A case with a wrong reply is saved."""
        reply, failure = self.reply(case), ""
        if wrong := failures(case, reply):
            path = save(case, self._saved, len(self.sent), self._seed, wrong)
            failure = f"{case.name}: {', '.join(wrong)} ({path.name})"
        self.sent.append((case.name, reply, failure))

    def reply(self, case: Case) -> Reply:
        self._memory.reset()
        self._is_loading = case.load
        began = time.monotonic()
        try:
            reply = self._load(case) if case.load else self._transcribe(case)
        except grpc.RpcError as error:
            reply = Reply(error.code().name, details=error.details() or "")
        took_s, growth_bytes = time.monotonic() - began, self._memory.growth_bytes()
        is_lost = reply.status == "UNAVAILABLE" and self.server.wait(1.0) is not None
        has_died = is_lost or not self.server.is_alive
        if has_died:
            self.restarts += 1
            self._stack.close()
            self._start()
        elif case.load and reply.status == OK:
            self._load_plan()
        return replace(reply, took_s=took_s, growth_bytes=growth_bytes, has_died=has_died)

    def _start(self) -> None:
        self.server = self._stack.enter_context(Server())
        self._load_plan()
        self._memory = self._stack.enter_context(PeakMemory(self.server.pid, with_children=True))

    def _load_plan(self) -> None:
        """Another name each time: the same options again would be no load."""
        self._loads += 1
        self.server.load_plan(Plan(steps=1, step_s=0.0001 + self._loads * 1e-9))

    def _load(self, case: Case) -> Reply:
        options = {"Model": Plan(steps=1, step_s=0.0001).as_name(), **case.request}
        result = self.server.stub.LoadModel(pb.ModelOptions(**options), timeout=_TIMEOUT_S)
        return Reply(OK) if result.success else Reply("refused", details=result.message)

    def _transcribe(self, case: Case) -> Reply:
        own = self.folder / f"{FILE_NAME}.wav"
        path = str(self._plain.path if case.kind == "requests" else own)
        if case.path or case.kind == "paths":
            path = case.path.replace("{folder}", str(self.folder))
        own.write_bytes(case.content)
        request = pb.TranscriptRequest(**{"dst": path, **case.request})
        result = self.server.stub.AudioTranscription(request, timeout=_TIMEOUT_S)
        return Reply(OK, text=result.text, violations=tuple(contract_violations(result)))

    def _run_bystander(self) -> None:
        while not self._done.wait(_BYSTANDER_S):
            server, was_loading = self.server, self._is_loading
            try:
                result = server.stub.AudioTranscription(self._bystander.message, timeout=_TIMEOUT_S)
            except (grpc.RpcError, ValueError) as error:  # ValueError: the channel was closed for a restart
                code = error.code().name if isinstance(error, grpc.RpcError) else str(error)
                is_between = (was_loading or self._is_loading) and code == "FAILED_PRECONDITION"
                if server is self.server and server.is_alive and not is_between:
                    self.inexact.append(code)
                continue
            self.answered += 1
            if result.text != self._bystander.text and not (was_loading or self._is_loading):
                self.inexact.append(f"another text: {result.text[:40]!r}")
