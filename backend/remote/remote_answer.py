"""One answer while it arrives: pieces of text to tokens, the checks of local decoding, and the recognition.

- A server says text; its tokens are those of the local tokenizer. Those of each piece are known while the answer goes
  on; those of the whole, when it has ended.
- A loop is stopped by the rule of local decoding (sequences/loop_detection.py).
"""

from __future__ import annotations

import re

from backend.chat_format.prompt_format import beginning
from backend.chat_format.spelling import TEXT_TAG, Spelling
from backend.remote.event_stream import Piece
from backend.remote.faults_of_servers import NOT_CONTINUED, ServerFailure
from backend.sequences.agreement import common_prefix
from backend.sequences.loop_detection import WINDOW_TOKENS, loops
from backend.serving.protocols import Recognition, Utterance

_SECOND_TAG = re.compile(r"\s*language\s+[^<]{1,60}" + re.escape(TEXT_TAG))
_STOP = "stop"  # the finish reason of an answer that the model ended
# The server counts its own tokens, of which a piece may be fewer than here. Beyond so many of ours it does not count.
_MOST_OVERRUN, _LEAST_BOUND = 2, 128


class RemoteAnswer:
    """The answer to `utterance`. `ids`: its tokens so far, the fixed ones of its draft included."""

    def __init__(self, utterance: Utterance, spelling: Spelling) -> None:
        self._utterance = utterance
        self._spelling = spelling
        self.fixed = utterance.draft[: utterance.fixed]
        self.ids: list[int] = list(self.fixed)
        self._before = spelling.text_of(self.fixed)  # the text of the fixed tokens, language tag included
        self._text = ""
        self._most_tokens = max(_MOST_OVERRUN * utterance.max_new_tokens, _LEAST_BOUND)
        self._finish = ""
        self._looped = False

    @property
    def beginning(self) -> str:
        """What the server is given of the answer: the language that is forced, and the fixed tokens."""
        return beginning(self._utterance.language) + self._before

    @property
    def max_tokens(self) -> int:
        return max(self._utterance.max_new_tokens - len(self.fixed), 1)

    @property
    def has_tag(self) -> bool:
        """Whether the language tag is complete."""
        return TEXT_TAG in self._before + self._text

    def add(self, piece: Piece) -> bool:
        """Whether the answer has ended with this piece."""
        self._text += piece.text
        self._finish = piece.finish
        for token in self._spelling.ids_of(piece.text):
            self.ids.append(token)
            if loops(self.ids[-WINDOW_TOKENS:]):
                self._looped = True
                return True
        return bool(piece.finish) or len(self.ids) > self._most_tokens

    def recognition(self) -> Recognition:
        """Raises ServerFailure where the server began the answer anew instead of going on."""
        if self.beginning and _SECOND_TAG.match(self._text):
            raise ServerFailure(NOT_CONTINUED)
        ids = tuple(self.ids) if self._looped else (*self.fixed, *self._spelling.ids_of(self._text))
        language, text = self._spelling.spell(ids, self._utterance.language, ended=True)
        is_finished = self._finish == _STOP and not self._looped
        tokens, agreed = self._spelling.tokens_of(text), common_prefix(ids, self._utterance.draft)
        return Recognition(text, language if text else None, is_finished, tokens, self._looped, ids, agreed)
