"""A Qwen3-ASR on vLLM servers behind the Recognizer protocol: no weights and no torch here, only its tokenizer."""

from __future__ import annotations

from collections.abc import Sequence

from backend.chat_format.spelling import Spelling
from backend.remote.remote_session import RemoteSession
from backend.remote.server_client import ServerClient
from backend.remote.servers import Servers
from backend.serving.protocols import Batching, Spelled, Token, Utterance


class RemoteRecognizer:
    """See serving/protocols.Recognizer. `chunk_s`: the checkpoint's own."""

    weight_bytes = 0

    def __init__(self, servers: Servers, client: ServerClient, spelling: Spelling, chunk_s: float) -> None:
        self._servers = servers
        self._client = client
        self._spelling = spelling
        self.chunk_s = chunk_s
        self.batching = Batching(rows=servers.places)

    def prepare(self, utterance: Utterance) -> Utterance:
        """Nothing: each passage has a thread of its own, which makes its request."""
        return utterance

    def session(self) -> RemoteSession:
        return RemoteSession(self._servers, self._client)

    def count_tokens(self, text: str) -> int:
        return len(self._spelling.ids_of(text))

    def spell(self, ids: Sequence[int], language: str | None) -> Spelled:
        return self._spelling.spell(ids, language, ended=False)

    def tokens_of(self, text: str) -> tuple[Token, ...]:
        return self._spelling.tokens_of(text)
