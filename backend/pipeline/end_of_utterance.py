"""Whether an utterance has ended, as the gateway asks: the model has no token for it, so its text is judged."""

from __future__ import annotations

from backend.options.option_values import EndOfUtterance
from backend.transcript.scripts import is_closing
from backend.transcript.sentences import TERMINAL


def ends_utterance(text: str, rule: EndOfUtterance) -> bool:
    """Whether the speaker has come to an end with this text, behind which there is a pause.

    `rule`: sentence: the text ends a sentence; pause: any text; off: never.
    """
    if rule != "sentence":
        return rule == "pause" and bool(text)
    end = len(text)
    while end and (is_closing(text[end - 1]) or text[end - 1].isspace()):
        end -= 1
    return bool(end) and text[end - 1] in TERMINAL
