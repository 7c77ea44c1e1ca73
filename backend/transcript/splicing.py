"""Goes on from text that has been sent when a later answer for the same sound differs from it.

What has been sent is never taken back (Law 7), so only the place matters at which the later answer is entered. It is
the end of the part that the sent text stands for: of all beginnings of the later answer the one with the least edit
distance to the sent text, word by word, without case, accents and punctuation. Of equal ones the longest is taken, so
nothing is said twice; where the two have nothing in common, as many words are left out as have been sent.
"""

from __future__ import annotations

from collections.abc import Sequence

from backend.transcript.joining import separator_between
from backend.transcript.matching import fold
from backend.transcript.scripts import pieces


def continuation(sent: str, answer: str) -> str:
    """What follows the text `sent`, by the later answer: with its leading white space, "" if there is no more.

    Time and memory grow with the product of the numbers of words: 0.2 s for 500 of each.
    """
    if answer.startswith(sent):
        return answer[len(sent) :]
    end = covered(answer, sent)
    rest = answer[end:].strip() if fold(answer) else ""
    if not rest:
        return ""
    return (
        answer[end : answer.index(rest, end)] + rest if answer[end].isspace() else separator_between(sent, rest) + rest
    )


def covered(text: str, answer: str) -> int:
    """Where the beginning of `text` ends that stands for what `answer` stands for: the number of its characters."""
    words = _words(text)
    count = _best_beginning([key for key, _ in _words(answer)], words)
    return words[count - 1][1] if count else 0


def _words(text: str) -> list[tuple[str, int]]:
    """The words of a text, folded, each with the end of its piece."""
    return [(key, end) for begin, end in pieces(text) if (key := fold(text[begin:end]))]


def _best_beginning(sent: Sequence[str], words: Sequence[tuple[str, int]]) -> int:
    """How many of the `words` come closest to `sent`, by Levenshtein distance."""
    distances = list(range(len(words) + 1))
    for number, word in enumerate(sent, start=1):
        diagonal, distances[0] = distances[0], number
        for at, (other, _) in enumerate(words, start=1):
            substituted = diagonal + (word != other)
            diagonal = distances[at]
            distances[at] = min(substituted, diagonal + 1, distances[at - 1] + 1)
    return max(range(len(words) + 1), key=lambda at: (-distances[at], at))
