"""Reduces a phrase that is repeated at the end of a text to one occurrence: the last resort against a decoding loop.

Only for texts that the engine has stopped in a loop of tokens (sequences/loop_detection.py): "10 000 000" repeats
itself, too, and three equal phrases in a row may be a refrain.
"""

from __future__ import annotations

from backend.thresholds import MAX_PHRASE_CHARS, MIN_REPEATS


def collapse_repetition(text: str) -> str:
    """`text` with the repetition at its end reduced to one phrase; unchanged if there is none."""
    best = (0, 0)  # characters that repeat the text before them, and the phrase's length
    for length in range(1, min(len(text) // MIN_REPEATS, MAX_PHRASE_CHARS) + 1):
        at = len(text) - 1
        while at >= length and text[at] == text[at - length]:
            at -= 1
        repeated = len(text) - 1 - at
        # an unfinished last occurrence counts as repeated text, but not as an occurrence
        if repeated >= (MIN_REPEATS - 1) * length and repeated > best[0]:
            best = repeated, length
    repeated, length = best
    if not repeated:
        return text
    # Cut before the first repeated character, or whole phrases from the end. The first leaves no unfinished phrase
    # over; the second does not cut into a word that merely ends like the phrase.
    first = len(text) - repeated
    if not text[-1].isalnum() or (text[first - 1].isalnum() and text[first].isalnum()):
        first = len(text) - repeated // length * length
    return text[:first].rstrip()
