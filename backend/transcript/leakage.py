"""Whether a text is the prompt's own words and not the recording's.

Given names and terms as context and little to hear, the model recites them (QwenLM/Qwen3-ASR issues 106, 140, 157,
186). Somebody may really say them, so this alone is no proof: the caller also asks how much speech there was.
"""

from __future__ import annotations

from difflib import SequenceMatcher
from math import ceil

from backend.transcript.matching import fold
from backend.transcript.scripts import pieces

LEAST_WORDS = 2  # one word of the prompt is an answer, not a recitation, unless it is all of the prompt
MOSTLY = 0.8  # of the text's words


def recites(text: str, prompt: str) -> bool:
    """True if most words of `text` stand in `prompt`, in the same order, once or over and over.

    Takes tens of milliseconds for a long prompt.
    """
    said, given = _words(text), _words(prompt)
    if not given or (len(said) < LEAST_WORDS and said != given):
        return False
    given *= ceil(len(said) / len(given))
    blocks = SequenceMatcher(None, said, given, autojunk=False).get_matching_blocks()
    return sum(block.size for block in blocks) >= MOSTLY * len(said)


def _words(text: str) -> list[str]:
    return [key for begin, end in pieces(text) if (key := fold(text[begin:end]))]
