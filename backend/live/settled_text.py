"""How much of an answer will not change when its sound goes on: what has left is never taken back.

Of the answer for a window of sound that is still growing, a beginning is settled

1. that the answer before it had, too (LocalAgreement, Liu et al. 2020): `agreed` characters;
2. behind which there are `hold` more words: a window's end is what the sound behind it changes. Where words are written
   without spaces a piece may be one character, so one more of the model's tokens is held back there than words;
3. that ends where a word does;
4. that does not end in the marks at the answer's end: the model closes every window with a full stop;
5. in which no repetition has begun that goes on to the answer's end: it may be a loop.
"""

from __future__ import annotations

from backend.sequences.loop_detection import repetition_start
from backend.serving.protocols import Recognition
from backend.transcript.matching import fold
from backend.transcript.scripts import is_continuous, is_letter, pieces


def settled(answer: Recognition, agreed: int, hold: int) -> str:
    """The settled beginning of the answer's text. It grows with `agreed` and shrinks with `hold`."""
    text = answer.text
    found = pieces(text)
    words = [fold(text[begin:end]) for begin, end in found]
    limit = min(agreed, _held_by_tokens(answer, hold))
    count = min(len(found) - hold, repetition_start(words))
    while count > 0:
        end = found[count - 1][1]
        if count == len(found):
            end = _without_marks(text, end)
        if end <= limit:
            return text[:end]
        count -= 1
    return ""


def _held_by_tokens(answer: Recognition, hold: int) -> int:
    """Where the last `hold` + 1 tokens begin, if the text ends in a script without spaces; else its end."""
    last = next((char for char in reversed(answer.text) if is_letter(char)), "")
    if not hold or not last or not is_continuous(last):
        return len(answer.text)
    return answer.tokens[-hold - 1].begin if len(answer.tokens) > hold else 0


def _without_marks(text: str, end: int) -> int:
    while end and not is_letter(text[end - 1]):
        end -= 1
    return end
