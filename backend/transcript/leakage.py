"""Detects prompt leakage: a hallucinated text that repeats the prompt instead of transcribing the recording.

Given names and terms as context and hardly any speech, the model recites them (QwenLM/Qwen3-ASR issues 106, 140, 157,
186). A speaker may also really say them, so the text alone is no proof: callers check how much speech there was, too.
"""

from __future__ import annotations

from difflib import SequenceMatcher
from math import ceil

from backend.thresholds import MIN_LEAKED_SHARE, MIN_LEAKED_WORDS
from backend.transcript.matching import fold
from backend.transcript.scripts import pieces


def is_prompt_leakage(text: str, prompt: str) -> bool:
    """Whether MIN_LEAKED_SHARE of the words of `text` stand in `prompt` in the same order, once or repeatedly.

    Takes tens of milliseconds for a long prompt.
    """
    text_words, prompt_words = _words(text), _words(prompt)
    if not prompt_words or (len(text_words) < MIN_LEAKED_WORDS and text_words != prompt_words):
        return False
    return _recites(text_words, prompt_words)


def may_begin_leakage(text: str, prompt: str) -> bool:
    """Whether the beginning of an answer may be that of prompt leakage: it recites, or is too short to tell."""
    text_words, prompt_words = _words(text), _words(prompt)
    return bool(prompt_words) and _recites(text_words, prompt_words)


def _recites(text_words: list[str], prompt_words: list[str]) -> bool:
    repeated = prompt_words * ceil(len(text_words) / len(prompt_words))
    blocks = SequenceMatcher(None, text_words, repeated, autojunk=False).get_matching_blocks()
    return sum(block.size for block in blocks) >= MIN_LEAKED_SHARE * len(text_words)


def _words(text: str) -> list[str]:
    return [key for begin, end in pieces(text) if (key := fold(text[begin:end]))]
