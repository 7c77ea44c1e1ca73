"""Recordings with pauses put into them, some inside a sentence and some at its end, and where an utterance was ended.

A pause that a speaker makes to think is as long as one at the end of a sentence. How often each is taken for the end of
an utterance says how well it is judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from devtools.eval.manifest import Entry
from devtools.eval.passages import SAMPLE_RATE, SENTENCE_ENDS, word_offsets
from devtools.live.paced_client import Event

PAUSE_S = 0.7
_LAST_S = 1.5  # of silence behind the last word
_LEAST_WORDS = 4  # of a sentence that is interrupted
_PATIENCE_S = 0.8  # for an end that is said when speech has gone on
_FAINT = 1e-4


class Pause(NamedTuple):
    """Seconds of the recording with its pauses."""

    start_s: float
    end_s: float
    ends_sentence: bool


def with_pauses(entry: Entry, samples: NDArray[np.float32]) -> tuple[NDArray[np.float32], list[Pause]]:
    """The sound, its pauses in the middle and at the end of each sentence. Raises TextMismatch; needs `entry.words`."""
    noise = np.random.default_rng(0)
    pieces, pauses, taken, added_s = [], [], 0, 0.0
    for after, ends_sentence in _places(entry):
        word = entry.words[after]
        is_last = after + 1 == len(entry.words)
        next_s = samples.size / SAMPLE_RATE if is_last else entry.words[after + 1].start_s
        cut = min(round((word.end_s + next_s) / 2 * SAMPLE_RATE), samples.size)
        pause_s = _LAST_S if is_last else PAUSE_S
        pieces += [samples[taken:cut], _FAINT * noise.standard_normal(round(pause_s * SAMPLE_RATE))]
        pauses.append(Pause(word.end_s + added_s, next_s + added_s + pause_s, ends_sentence))
        taken, added_s = cut, added_s + pause_s
    return np.concatenate([*pieces, samples[taken:]]).astype(np.float32), pauses


def _places(entry: Entry) -> Iterator[tuple[int, bool]]:
    """The words after which there is a pause, and whether a sentence ends there."""
    begins, ends = word_offsets(entry)
    closes = [
        bool(SENTENCE_ENDS & set(entry.text[end:begin])) for end, begin in zip(ends, [*begins[1:], None], strict=True)
    ]
    lasts = [i for i, is_end in enumerate(closes) if is_end]
    for before, last in pairwise([-1, *lasts]):
        if last - before >= _LEAST_WORDS:
            yield (before + last) // 2, False
        yield last, True


def ended(pauses: Sequence[Pause], events: Sequence[Event]) -> list[bool]:
    """For each pause whether an end of utterance was said in it, or right behind it."""
    at_s = [event.at_s for event in events if event.eou]
    return [any(pause.start_s <= each <= pause.end_s + _PATIENCE_S for each in at_s) for pause in pauses]
