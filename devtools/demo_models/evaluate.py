"""How well the demo checkpoints recognise and align, through the running backend.

`python -m devtools.demo_models.evaluate`: new takes of the training's voices and of voices held out, in recordings of
1 s to 3 min, with default options. Word errors, languages and word boundaries, each beside its goal; exit code 1 when
one is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence

import numpy as np
import soundfile

from backend.wire.backend_pb2 import ModelOptions
from devtools.demo_models.speech import SAMPLE_RATE, ClipBank, Recording, compose, compose_silence
from devtools.eval import backend_client
from devtools.eval.hypotheses import Hypothesis, Job, Word
from devtools.eval.normalization import key
from devtools.eval.scoring import matches, word_alignment
from devtools.server_process import DEMO_ALIGNER, DEMO_MODEL, ServerFailed
from devtools.transcribe.checkpoints import load_options

LENGTHS_S = ((1.0, 2.0, 16), (2.0, 5.0, 20), (5.0, 15.0, 16), (15.0, 40.0, 10), (60.0, 180.0, 4))  # from, to, how many
VOICES = {"trained voices": "trained_again", "voices left out": "held_out"}
# At most; of languages at least.
GOALS = {
    "trained voices": {"word errors %": 1, "language %": 99, "boundary mean ms": 40, "boundary p95 ms": 100},
    "voices left out": {"word errors %": 5, "language %": 99, "boundary mean ms": 60},
}


def spoken_recordings(bank: ClipBank, seed: int, share: float) -> list[Recording]:
    rng = np.random.default_rng(seed)
    lengths = [(low, high) for low, high, count in LENGTHS_S for _ in range(max(1, round(count * share)))]
    return [compose(rng, bank, seconds=rng.uniform(low, high), augment=False) for low, high in lengths]


def figures(recordings: Sequence[Recording], hypotheses: Sequence[Hypothesis]) -> dict[str, float]:
    errors = 0
    edges_s: list[float] = []
    for recording, hypothesis in zip(recordings, hypotheses, strict=True):
        truth = [Word(*spoken) for spoken in recording.spoken]
        keys = filter(None, (key(word.text) for word in hypothesis.words))
        aligned = word_alignment((word.text for word in truth), keys)
        errors += aligned.substitutions + aligned.deletions + aligned.insertions
        for i, j in matches(truth, hypothesis.words):
            edges_s += map(abs, hypothesis.words[j].edge_errors_s(truth[i]))
    right = [h.language == r.language for r, h in zip(recordings, hypotheses, strict=True)]
    return {
        "word errors %": 100 * errors / sum(len(recording.spoken) for recording in recordings),
        "language %": 100 * float(np.mean(right)),
        "boundary mean ms": 1000 * float(np.mean(edges_s)),
        "boundary p95 ms": 1000 * float(np.percentile(edges_s, 95)),
    }


def transcribed(recordings: Sequence[Recording], options: ModelOptions) -> list[Hypothesis]:
    """Raises ServerFailed where the backend fails on any of them."""
    with tempfile.TemporaryDirectory() as folder:
        jobs = [Job(str(number), f"{folder}/{number}.wav") for number in range(len(recordings))]
        for job, recording in zip(jobs, recordings, strict=True):
            soundfile.write(job.audio, recording.samples, SAMPLE_RATE, subtype="PCM_16")
        found = list(backend_client.run(jobs, options).hypotheses.values())
    for hypothesis in found:
        if hypothesis.failure:
            raise ServerFailed(hypothesis.failure)
    return found


def evaluate(options: ModelOptions, share: float) -> dict[str, dict[str, float]]:
    results: dict[str, dict[str, float]] = {}
    for seed, (name, bank) in enumerate(VOICES.items(), 100):
        recordings = spoken_recordings(ClipBank.recorded(bank), seed, share)
        results[name] = figures(recordings, transcribed(recordings, options))
    rng = np.random.default_rng(99)
    silent = [compose_silence(rng, seconds=rng.uniform(0.5, 20)) for _ in range(round(40 * share))]
    invented = [bool(hypothesis.text) for hypothesis in transcribed(silent, options)]
    return {**results, "nobody speaks": {"with text %": 100 * float(np.mean(invented))}}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=str(DEMO_MODEL))
    parser.add_argument("--aligner", default=str(DEMO_ALIGNER))
    parser.add_argument("--share", type=float, default=1.0, help="of the recordings")
    args = parser.parse_args()
    results = evaluate(load_options(args.model, args.aligner), args.share)
    missed = False
    for name, found in results.items():
        for figure, value in found.items():
            goal, sign = GOALS.get(name, {}).get(figure), "≥" if figure == "language %" else "≤"
            is_met = goal is None or (value >= goal if sign == "≥" else value <= goal)
            missed = missed or not is_met
            bound = "" if goal is None else f"   goal {sign} {goal}"
            print(f"{name:16} {figure:18} {value:8.2f}{bound}{'' if is_met else '   MISSED'}")
    print(json.dumps(results))
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
