"""Digital silence before, behind and on both sides of recordings: how many words the recogniser adds to its answers.

Zeros hold no word, so an answer must not have more words with them than without. The recordings are the demo set and
new takes of voices that no training used, each as it is and in every MARGIN; with the detector, which cuts long
silence off, and without it, where the model is given all of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from backend.wire.backend_pb2 import ModelOptions
from devtools.demo_models.silence import inserted
from devtools.demo_models.speech import SAMPLE_RATE, ClipBank, Recording, Spoken, compose
from devtools.demo_models.through_backend import transcribed
from devtools.eval.hypotheses import Hypothesis
from devtools.eval.manifest import DEMO_SET, read
from devtools.eval.normalization import key, tokens
from devtools.eval.scoring import word_alignment

MARGINS_S = (0.3, 1.0, 2.0, 20.0)
SIDES = {"before": (True, False), "behind": (False, True), "both sides": (True, True)}
TAKES, TAKES_SEED = 60, 400
WITHOUT_VAD = ", vad:off"  # at the end of a cell's name


def recordings(share: float) -> list[Recording]:
    """The demo set's recordings with speech, and TAKES commands and short texts by voices left out of the training."""
    demo = [
        Recording(entry.samples(), entry.language, [[Spoken(*word) for word in entry.words]])
        for entry in read(DEMO_SET)
        if entry.is_speech
    ]
    rng, bank = np.random.default_rng(TAKES_SEED), ClipBank.recorded("held_out")
    takes = [
        compose(rng, bank, seconds=rng.uniform(0.8, 6), augment=False) for _ in range(max(1, round(TAKES * share)))
    ]
    return [*demo[: max(1, round(len(demo) * share))], *takes]


def in_zeros(recording: Recording, margin_s: float, side: str) -> Recording:
    """The recording with `margin_s` seconds of zeros on one of SIDES."""
    zeros = np.zeros(round(margin_s * SAMPLE_RATE), np.float32)
    places = (0, recording.samples.size)
    return inserted(recording, [(place, zeros) for place, wanted in zip(places, SIDES[side], strict=True) if wanted])


def figures(spoken: Sequence[Recording], plain: Sequence[Hypothesis], padded: Sequence[Hypothesis]) -> dict[str, float]:
    """Words that the answers to `padded` have more and fewer than those to the same recordings without zeros."""
    gained = [
        len(_words(recording, after)) - len(_words(recording, before))
        for recording, before, after in zip(spoken, plain, padded, strict=True)
    ]
    return {
        "words more": float(sum(max(0, words) for words in gained)),
        "words fewer": float(sum(max(0, -words) for words in gained)),
        "word errors %": _error_percent(spoken, padded),
    }


def evaluate(options: ModelOptions, share: float) -> dict[str, dict[str, float]]:
    """Figures of every cell by its name, with the detector and without it. Raises ServerFailed."""
    spoken, results = recordings(share), dict[str, dict[str, float]]()
    for suffix, more in (("", []), (WITHOUT_VAD, ["vad:off"])):
        switched = ModelOptions()
        switched.CopyFrom(options)
        switched.Options.extend(more)
        plain = transcribed(spoken, switched, with_words=False)
        results[f"no zeros{suffix}"] = {"word errors %": _error_percent(spoken, plain)}
        for margin_s in MARGINS_S:  # one at a time: those of 20 s are half a gigabyte
            padded = [in_zeros(recording, margin_s, side) for side in SIDES for recording in spoken]
            found = transcribed(padded, switched, with_words=False)
            for number, side in enumerate(SIDES):
                cell = found[number * len(spoken) : (number + 1) * len(spoken)]
                results[f"{margin_s:g} s {side}{suffix}"] = figures(spoken, plain, cell)
    return results


def _words(recording: Recording, hypothesis: Hypothesis) -> list[str]:
    language = recording.language or ""
    return [word for token in tokens(hypothesis.text, language) if (word := key(token))]


def _error_percent(spoken: Sequence[Recording], found: Sequence[Hypothesis]) -> float:
    errors = 0
    for recording, hypothesis in zip(spoken, found, strict=True):
        aligned = word_alignment((key(word.word) for word in recording.spoken), _words(recording, hypothesis))
        errors += aligned.substitutions + aligned.deletions + aligned.insertions
    return 100 * errors / sum(len(recording.spoken) for recording in spoken)
