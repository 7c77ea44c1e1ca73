"""Sees, while an answer is being written, that it has begun to repeat itself.

About one file in ten ends in a loop (QwenLM/Qwen3-ASR issue 129): thousands of tokens of one phrase. A loop is three
full turns of a phrase and enough tokens that nobody would say them: "no, no, no" and a refrain are none. No torch.
"""

from __future__ import annotations

from collections.abc import Sequence

LONGEST_PHRASE = 48  # tokens: a long sentence
TURNS = 3
LEAST_TOKENS = 18  # a phrase of one or two tokens must stand longer to be a loop
LOOKED_AT = TURNS * LONGEST_PHRASE  # tokens at the end of an answer that `loops` reads


def loops(tokens: Sequence[int]) -> int:
    """The length of the phrase that `tokens` end with three times or more; 0 if there is none."""
    size = len(tokens)
    last = tokens[-1] if size else None
    for length in range(1, min(LONGEST_PHRASE, size // TURNS) + 1):
        if tokens[size - 1 - length] != last:  # quick: most lengths end here
            continue
        turns = max(TURNS, -(-LEAST_TOKENS // length))
        span = turns * length
        if span <= size and all(tokens[at] == tokens[at - length] for at in range(size - span + length, size)):
            return length
    return 0
