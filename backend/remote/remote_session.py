"""Passages that are with the servers, in the shape of a session: the scheduler runs nothing else.

- Each passage is in a thread of its own, which does nothing but wait for the network. `step` waits for an answer, at
  most REMOTE_STEP_S, so the model thread sees cancelled passages, new ones and the aligner's batches between.
- Listeners are called by the model thread, as in local decoding: with all tokens so far, at most once a step.
- A passage that no server recognises ends with its error. Those beside it go on.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence

from backend.errors import AsrError
from backend.remote.faults_of_servers import FAILED, Fault, ServerFailure
from backend.remote.passage_call import PassageCall
from backend.remote.server_client import ServerClient
from backend.remote.servers import Server, Servers
from backend.serving.protocols import Recognition, Utterance
from backend.thresholds import REMOTE_STEP_S


class RemoteSession:
    """See serving/protocols.Session."""

    def __init__(self, servers: Servers, client: ServerClient) -> None:
        self._servers = servers
        self._client = client
        self._calls: dict[int, PassageCall] = {}  # by the utterance's id
        self._told: dict[int, int] = {}  # how many tokens its listener knows
        self._ended: queue.SimpleQueue[PassageCall] = queue.SimpleQueue()
        self._is_fresh = False  # passages were added since the last step: more may wait to be

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, utterances: Sequence[Utterance]) -> None:
        calls = [PassageCall(utterance, self._servers, self._client, self._ended.put) for utterance in utterances]
        try:
            for call in calls:
                call.start()
        except RuntimeError:  # no more threads can be started
            for call in calls:
                call.cancel()
            raise
        for call in calls:
            self._calls[id(call.utterance)] = call
            self._told[id(call.utterance)] = call.utterance.fixed
        self._is_fresh = True

    def step(self) -> list[tuple[Utterance, Recognition | AsrError]]:
        """Wait for an answer. Returns the utterances that ended, some of them perhaps with an error."""
        ended = self._next_ended()
        results: list[tuple[Utterance, Recognition | AsrError]] = []
        for call in ended:
            if self._calls.get(id(call.utterance)) is call and call.result is not None:  # else it was dropped
                self._forget(call.utterance)
                results.append((call.utterance, call.result))
        for call in self._calls.values():
            call.end_if_late()
            self._tell(call)
        for server in self._servers.due_for_probe():
            threading.Thread(target=self._probe, args=(server,), name="probe", daemon=True).start()
        return results

    def drop(self, utterance: Utterance) -> None:
        """Close the connection on which the utterance is: its request was cancelled."""
        call = self._calls.get(id(utterance))
        if call is not None:
            self._forget(utterance)
            call.cancel()

    def _next_ended(self) -> list[PassageCall]:
        """Those that have ended; waits for the first, but not if passages have just been added."""
        timeout_s, self._is_fresh = 0.0 if self._is_fresh else REMOTE_STEP_S, False
        ended = []
        try:
            ended.append(self._ended.get(timeout=timeout_s))
            while True:
                ended.append(self._ended.get_nowait())
        except queue.Empty:
            return ended

    def _forget(self, utterance: Utterance) -> None:
        del self._calls[id(utterance)], self._told[id(utterance)]

    def _tell(self, call: PassageCall) -> None:
        """Tell the listener the tokens so far. An answer that began again, elsewhere, begins with few."""
        listener, answer = call.utterance.listener, call.answer
        if listener is None or answer is None:
            return
        ids = tuple(answer.ids)
        if len(ids) != self._told[id(call.utterance)] and len(ids) > call.utterance.fixed:
            self._told[id(call.utterance)] = len(ids)
            listener(ids)

    def _probe(self, server: Server) -> None:
        fault: Fault | None = FAILED
        try:
            self._client.probe(server)
            fault = None
        except ServerFailure as failure:
            fault = failure.fault
        finally:
            self._servers.probed(server, fault)
