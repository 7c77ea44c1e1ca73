"""The request's prompt: text that a client sends as context for the model. It is made harmless, and its length limited.

The limit in characters is checked first, because it needs no model; the limit in tokens needs the model's tokenizer.
"""

from __future__ import annotations

import asyncio
import re

from backend.errors import NoKnownText, PromptTooLong
from backend.serving.protocols import Recognizer

_CONTROL_TOKEN = re.compile(r"<\|[^<>]*?\|>|<asr_text>|<timestamp>", re.IGNORECASE)
_CONTROL_CHARACTER = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# Rounds of removal. Thousands of nested tokens would take a quarter of a second on the event loop's thread, and Health
# would wait.
_MAX_NESTING = 8
_MAX_CHARS = 8192  # a longer prompt is a document, whose prefill every chunk would pay for
_MAX_TEXT_BYTES = 512 * 1024  # a book of hours; the aligner is given pieces that fit their sound
_MAX_TOKENS = 2048  # a token of the KV cache takes 112 KiB in each row of a batch: 224 MiB
_MAX_TOKENS_PER_BYTE = 3  # see Recognizer.count_tokens


def sanitized_prompt(prompt: str) -> str:
    """The prompt without the tokens that have a meaning in the model's chat template, and without control characters.

    Removal is repeated until nothing changes, so that the text around a removed token cannot form a new one. A prompt
    that is still changing after eight rounds loses every `<`. Raises PromptTooLong beyond 8192 characters.
    """
    if len(prompt) > _MAX_CHARS:
        raise PromptTooLong(len(prompt), _MAX_CHARS, "characters")
    return _without_control_tokens(_CONTROL_CHARACTER.sub(" ", prompt)).strip()


def sanitized_text(text: str) -> str:
    """A text whose times are wanted, without the tokens of the chat template; everything else stays as it is.

    Raises PromptTooLong beyond 512 KiB, and NoKnownText where there is none.
    """
    if len(data := text.encode()) > _MAX_TEXT_BYTES:
        raise PromptTooLong(len(data), _MAX_TEXT_BYTES, "bytes")
    text = _without_control_tokens(text)
    if not text.strip():
        raise NoKnownText
    return text


def _without_control_tokens(text: str) -> str:
    for _ in range(_MAX_NESTING):
        cleaner = _CONTROL_TOKEN.sub("", text)
        if cleaner == text:
            return text
        text = cleaner
    return text.replace("<", "")


async def check_token_limit(prompt: str, recognizer: Recognizer) -> None:
    """Raises PromptTooLong beyond 2048 tokens. A prompt that cannot have so many is not tokenised.

    Rare characters are up to four tokens each.
    """
    if len(prompt.encode()) * _MAX_TOKENS_PER_BYTE <= _MAX_TOKENS:
        return
    count = await asyncio.to_thread(recognizer.count_tokens, prompt)
    if count > _MAX_TOKENS:
        raise PromptTooLong(count, _MAX_TOKENS, "tokens")
