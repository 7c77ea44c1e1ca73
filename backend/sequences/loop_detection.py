"""Detects, while an answer is decoded, that it has begun to repeat itself, or that it may be about to.

About one file in ten ends in a loop (QwenLM/Qwen3-ASR issue 129): thousands of tokens of one phrase. Greedy decoding
does not leave a loop by itself.

Rules: a loop is a phrase of at most MAX_LOOP_PHRASE_TOKENS, repeated at least MIN_LOOP_REPEATS times in a row and over
at least MIN_LOOP_TOKENS tokens at the end of the answer. Speech has shorter repetitions: "no, no, no", or a refrain.
"""

from __future__ import annotations

from collections.abc import Sequence

from backend.thresholds import (
    MAX_LOOP_PHRASE_TOKENS,
    MIN_LOOP_REPEATS,
    MIN_LOOP_TOKENS,
    MIN_REPETITION_TOKENS,
)

WINDOW_TOKENS = MIN_LOOP_REPEATS * MAX_LOOP_PHRASE_TOKENS  # `loops` needs no more than these last tokens of an answer


def loops(tokens: Sequence[int]) -> int:
    """The length, in tokens, of the shortest phrase in whose repetition `tokens` end; 0 if they end in no loop."""
    size = len(tokens)
    last = tokens[-1] if size else None
    for length in range(1, min(MAX_LOOP_PHRASE_TOKENS, size // MIN_LOOP_REPEATS) + 1):
        if tokens[size - 1 - length] != last:  # rules most lengths out at once
            continue
        repeats = max(MIN_LOOP_REPEATS, -(-MIN_LOOP_TOKENS // length))
        span = repeats * length
        if span <= size and all(tokens[at] == tokens[at - length] for at in range(size - span + length, size)):
            return length
    return 0


def repetition_start(tokens: Sequence[int] | Sequence[str]) -> int:
    """Where the repetition begins in which `tokens` (or words) end: the length before it, or of all without one.

    A repetition is at most MAX_LOOP_PHRASE_TOKENS behind what it repeats, and as long as that or
    MIN_REPETITION_TOKENS. Nearly all end by themselves; one that goes on is a loop.
    """
    size = len(tokens)
    start = size
    for length in range(1, min(MAX_LOOP_PHRASE_TOKENS, size - 1) + 1):
        at = size
        while at > length and tokens[at - 1] == tokens[at - 1 - length]:
            at -= 1
        if size - at >= min(length, MIN_REPETITION_TOKENS):
            start = min(start, at)
    return start
