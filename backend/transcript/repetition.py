"""A passage whose end is one phrase over and over: the last resort is to say the phrase once.

Only for what the engine has stopped in a loop of tokens (loop_detection.py): "10 000 000" repeats itself, too.
"""

from __future__ import annotations

LEAST_TIMES = 3  # a phrase that stands three times in a row may be a refrain: whoever asks knows that it is a loop
LONGEST_PHRASE = 400  # characters


def collapsed(text: str) -> str:
    """`text` with the repetition at its end reduced to its phrase; unchanged if there is none."""
    best = (0, 0)  # characters that repeat what stands before them, and the phrase's length
    for length in range(1, min(len(text) // LEAST_TIMES, LONGEST_PHRASE) + 1):
        at = len(text) - 1
        while at >= length and text[at] == text[at - length]:
            at -= 1
        repeated = len(text) - 1 - at
        # an unfinished last turn counts towards the repetition, not towards the number of turns
        if repeated >= (LEAST_TIMES - 1) * length and repeated > best[0]:
            best = repeated, length
    repeated, length = best
    if not repeated:
        return text
    # Two places to cut: before the first repeated character, or whole turns from the end. The first keeps a turn that
    # was broken off from being left over; the second does not tear off what merely resembles the phrase's end.
    first = len(text) - repeated
    if not text[-1].isalnum() or (text[first - 1].isalnum() and text[first].isalnum()):
        first = len(text) - repeated // length * length
    return text[:first].rstrip()
