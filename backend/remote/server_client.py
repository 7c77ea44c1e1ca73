"""What a server is asked for: the answer to a passage, a sign of life, and a proof that it does what it must."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from backend.chat_format.spelling import Spelling
from backend.remote.api_key import ApiKey
from backend.remote.chat_request import chat_request
from backend.remote.connection import Connection
from backend.remote.event_stream import pieces_of
from backend.remote.faults_of_servers import (
    FOREIGN,
    NO_MODEL,
    NOT_CONTINUED,
    REFUSED,
    SEVERAL_MODELS,
    TIMED_OUT,
    ServerFailure,
)
from backend.remote.remote_answer import RemoteAnswer
from backend.remote.servers import Server
from backend.serving.protocols import SAMPLE_RATE, Utterance
from backend.thresholds import PROBE_TIMEOUT_S

_COMPLETIONS, _MODELS, _HEALTH = "/v1/chat/completions", "/v1/models", "/health"
_PROOF_TOKENS = 16


class ServerClient:
    """For any thread. `model`: its name on the servers, "" for the only one. `timeout_s`: for one answer."""

    def __init__(self, model: str, key: ApiKey, timeout_s: float, spelling: Spelling) -> None:
        self._model = model
        self._key = key
        self.timeout_s = timeout_s
        self._spelling = spelling

    def connection(self, server: Server) -> Connection:
        """For one passage."""
        return Connection(server.url, self._key.headers, self.timeout_s)

    def new_answer(self, utterance: Utterance) -> RemoteAnswer:
        return RemoteAnswer(utterance, self._spelling)

    def receive(
        self,
        server: Server,
        utterance: Utterance,
        answer: RemoteAnswer,
        connection: Connection,
        heard: Callable[[], None],
    ) -> None:
        """Fill `answer` with what the server says; `heard` is called with each piece. Raises ServerFailure."""
        body = chat_request(utterance, server.model, answer.beginning, answer.max_tokens)
        with connection:
            for piece in pieces_of(connection.post_for_lines(_COMPLETIONS, body)):
                heard()
                if answer.add(piece):
                    return  # closing the connection stops a server that would go on

    def probe(self, server: Server) -> None:
        """Whether the server lives; whether it does what it must, if that was not proved yet. Raises ServerFailure."""
        if not server.model:
            self.prove(server)
        with Connection(server.url, self._key.headers, PROBE_TIMEOUT_S) as connection:
            connection.check(_HEALTH)

    def prove(self, server: Server) -> bool:
        """Find the model's name, recognise a second of noise, and that once more in a forced language.

        Returns whether the answer had a language tag. Raises ServerFailure.
        """
        asked = Server(server.number, server.url, self._served(server))
        noise = np.random.default_rng(0).uniform(-0.1, 0.1, SAMPLE_RATE).astype(np.float32)
        tags: list[bool] = []
        for language in (None, "en"):
            utterance = Utterance(noise, language, "", _PROOF_TOKENS)
            answer = self.new_answer(utterance)
            until = _until(time.monotonic() + self.timeout_s)
            try:
                self.receive(asked, utterance, answer, self.connection(server), until)
            except ServerFailure as failure:
                if failure.fault is REFUSED and tags:  # it took the same sound without a language
                    raise ServerFailure(NOT_CONTINUED) from None
                raise
            answer.recognition()
            tags.append(answer.has_tag)
        server.model = asked.model
        return tags[0]

    def _served(self, server: Server) -> str:
        with self.connection(server) as connection:
            listed: Any = connection.get_json(_MODELS)
        try:
            names = [str(model["id"]) for model in listed["data"]]
        except (TypeError, KeyError):
            raise ServerFailure(FOREIGN) from None
        if self._model:
            if self._model not in names:
                raise ServerFailure(NO_MODEL)
            return self._model
        if len(names) != 1:
            raise ServerFailure(SEVERAL_MODELS if names else FOREIGN)
        return names[0]


def _until(deadline: float) -> Callable[[], None]:
    def heard() -> None:
        if time.monotonic() > deadline:
            raise ServerFailure(TIMED_OUT)

    return heard
