"""The format of an answer: token ids to its language tag and its text, for whole answers and for those that go on.

An answer is `language English<asr_text>The text.`, or the text alone where the language was forced. The same
function serves both, so what a stream sends while an answer is decoded is a prefix of what the answer turns out to be:

- The text is empty until the language tag is complete.
- A character whose last bytes are missing is left out, and so is white space at the end.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tokenizers import Tokenizer

from backend.languages import code_of_name
from backend.serving.protocols import Spelled, Token

TEXT_TAG = "<asr_text>"
_BARE_TAG = re.compile(r"\s*language(\s+\w+)?\s*")  # an answer that is no more than this was cut inside its tag


class Spelling:
    """Detokenisation of one checkpoint's answers. Its methods are for any thread."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def spell(self, ids: Sequence[int], language: str | None, *, ended: bool) -> Spelled:
        """The language and the text of an answer. `language`: the code that was forced, None if it was to be detected.

        `ended`: no token follows. Only then an answer without a language tag is known to have none.
        """
        answer: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        if language is None:
            tag, found, text = answer.partition(TEXT_TAG)
            language = code_of_name(tag.strip().removeprefix("language")) if found else None
            is_text = ended and not _BARE_TAG.fullmatch(tag)
            answer = text if found else tag if is_text else ""
        # U+FFFD stands for bytes that are no character: the budget can run out, or a step end, inside one.
        return Spelled(language, answer.replace("\ufffd", "").strip())

    def tokens_of(self, text: str) -> tuple[Token, ...]:
        """The tokens of a text, each with its slice of it."""
        encoded = self._tokenizer.encode(text, add_special_tokens=False)
        return tuple(Token(token, *span) for token, span in zip(encoded.ids, encoded.offsets, strict=True))

    def ids_of(self, text: str) -> list[int]:
        """The tokens of a text in which the tokens of the chat format, such as the language's tag, are themselves."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def text_of(self, ids: Sequence[int]) -> str:
        """The text of tokens, with those of the chat format."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=False)
        return text
