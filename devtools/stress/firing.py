"""Sends cases, one at a time, to a server that it starts again whenever one has ended it.

One at a time, so that time, memory and a crash belong to the input that caused them. Beside them a bystander asks for a
recording of its own all the while: whatever is sent, its answers stay exact.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc

from backend.wire import backend_pb2 as pb
from devtools.stress.asking import OK, Wanted, faults_of, golden_is_exact, own_sound
from devtools.stress.cases import Case
from devtools.stress.child import Child
from devtools.stress.plan import Plan, taking
from devtools.stress.processes import Cost
from devtools.stress.verdict import OURS, Reply

_PATIENCE_S = 120.0  # for one input: what hangs is to be seen as how long it took
_BETWEEN_S = 0.1  # of the bystander's requests
_SOUND_S = 1.0


class Range:
    """`with Range(folder) as range:` has a server; `fire` sends a case to it. `restarts`: how often it had died."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = contextlib.ExitStack()
        self._name = folder / f"{OURS}.wav"
        self._golden = own_sound(folder, 99, 1.5, taking(2))
        self._plain = own_sound(folder, 98, _SOUND_S)
        self.restarts = self._loads = 0
        self.is_loading = False
        self.bystander = Bystander(self, own_sound(folder, 97, 0.3, taking(1)))

    def __enter__(self) -> Range:
        self._begin()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """With a bystander."""
        with self.bystander:
            yield

    def fire(self, case: Case) -> Reply:
        self._cost.forget()
        self.is_loading = bool(case.load)
        began = time.monotonic()
        reply = self._load(case) if case.load else self._transcribe(case)
        took_s, cost = time.monotonic() - began, self._cost.since_before()
        has_died = not self.child.is_alive or (reply.status == "UNAVAILABLE" and self.child.ended(1.0) is not None)
        if has_died:
            self.restarts += 1
            self._stack.close()
            self._begin()
        elif case.load and reply.status == OK:
            self._reload()
        return Reply(reply.status, took_s, cost, reply.details, reply.text, reply.faults, has_died)

    def golden_is_exact(self) -> bool:
        return self.child.is_alive and golden_is_exact(self.child, self._golden)

    def _begin(self) -> None:
        self.child = self._stack.enter_context(Child())
        self._reload()
        self._cost = self._stack.enter_context(Cost(self.child.pid))

    def _reload(self) -> None:
        """Another name each time, or the same options again would be no load."""
        self._loads += 1
        self.child.load_plan(Plan(steps=1, step_s=0.0001 + self._loads * 1e-9))

    def _load(self, case: Case) -> Reply:
        options = {"Model": Plan(steps=1, step_s=0.0001).as_name(), **case.request}
        try:
            result = self.child.stub.LoadModel(pb.ModelOptions(**options), timeout=_PATIENCE_S)
        except grpc.RpcError as error:
            return Reply(error.code().name, 0.0, details=error.details() or "")
        return Reply(OK if result.success else "refused", 0.0, details="" if result.success else result.message)

    def _transcribe(self, case: Case) -> Reply:
        request = pb.TranscriptRequest(**{"dst": self._path(case), **case.request})
        try:
            result = self.child.stub.AudioTranscription(request, timeout=_PATIENCE_S)
        except grpc.RpcError as error:
            return Reply(error.code().name, 0.0, details=error.details() or "")
        finally:
            self._name.unlink(missing_ok=True)
        return Reply(OK, 0.0, text=result.text, faults=tuple(faults_of(result)))

    def _path(self, case: Case) -> str:
        if case.path or case.kind == "paths":
            return case.path.replace("{folder}", str(self._folder))
        if case.kind == "requests":
            return str(self._plain.path)
        self._name.write_bytes(case.content)
        return str(self._name)


class Bystander:
    """Asks for its own recording in a thread. What a restart costs it is not counted: the death itself is.

    Nor is what comes while one model takes another's place: it is told so, or the other has other options.
    """

    def __init__(self, range_: Range, wanted: Wanted) -> None:
        self._range = range_
        self._wanted = wanted
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self.asked = 0
        self.inexact: list[str] = []

    def __enter__(self) -> Bystander:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._ended.wait(_BETWEEN_S):
            child, is_between = self._range.child, self._range.is_loading
            try:
                result = child.stub.AudioTranscription(self._wanted.request, timeout=_PATIENCE_S)
            except (grpc.RpcError, ValueError) as error:  # ValueError: the channel was closed for a restart
                said = error.code().name if isinstance(error, grpc.RpcError) else str(error)
                is_between |= self._range.is_loading
                if child is self._range.child and child.is_alive and not (is_between and said == "FAILED_PRECONDITION"):
                    self.inexact.append(said)
                continue
            self.asked += 1
            if result.text != self._wanted.text and not (is_between or self._range.is_loading):
                self.inexact.append(f"another text: {result.text[:40]!r}")
