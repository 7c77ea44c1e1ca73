"""How well the demo checkpoints recognise and align, through the running backend.

`python -m devtools.demo_models.evaluate`: new takes of the training's voices and of voices held out, in recordings of
1 s to 3 min, with default options. Word errors, languages and word boundaries, each beside its goal; exit code 1 when
one is missed.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Sequence

import jiwer
import numpy as np
import soundfile

from backend.wire.backend_pb2 import TranscriptResult
from devtools.demo_models.speech import SAMPLE_RATE, ClipBank, Recording, compose, compose_silence
from devtools.server_process import DEMO_ALIGNER, DEMO_MODEL, ServerProcess
from devtools.transcribe.checkpoints import load_options
from devtools.transcribe.client import transcribe, transcript_request

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


def figures(recordings: Sequence[Recording], transcripts: Sequence[TranscriptResult]) -> dict[str, float]:
    errors, edges_ms = 0, []
    for recording, transcript in zip(recordings, transcripts, strict=True):
        truth = recording.spoken
        words = [word for segment in transcript.segments for word in segment.words]
        found = [(text, word) for word in words if (text := re.sub(r"\W|_", "", word.text).lower())]
        aligned = jiwer.process_words(" ".join(t.word for t in truth), " ".join(text for text, _ in found) or "-")
        errors += aligned.substitutions + aligned.deletions + aligned.insertions
        for part in aligned.alignments[0]:
            for i in range(part.ref_start_idx, part.ref_end_idx) if part.type == "equal" else ():
                word = found[part.hyp_start_idx + i - part.ref_start_idx][1]
                _, start_s, end_s = truth[i]
                edges_ms += [abs(word.start / 1e6 - 1000 * start_s), abs(word.end / 1e6 - 1000 * end_s)]
    right = [t.language == r.language for r, t in zip(recordings, transcripts, strict=True)]
    return {
        "word errors %": 100 * errors / sum(len(recording.spoken) for recording in recordings),
        "language %": 100 * float(np.mean(right)),
        "boundary mean ms": float(np.mean(edges_ms)),
        "boundary p95 ms": float(np.percentile(edges_ms, 95)),
    }


def transcripts(server: ServerProcess, recordings: Sequence[Recording]) -> list[TranscriptResult]:
    found = []
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        for recording in recordings:
            soundfile.write(file.name, recording.samples, SAMPLE_RATE, subtype="PCM_16")
            found.append(transcribe(server, transcript_request(file.name))[0])
    return found


def evaluate(model: str, aligner: str, share: float) -> dict[str, dict[str, float]]:
    rng = np.random.default_rng(99)
    results: dict[str, dict[str, float]] = {}
    with ServerProcess() as server:
        server.load(load_options(model, aligner))
        for number, (name, bank) in enumerate(VOICES.items()):
            recordings = spoken_recordings(ClipBank.recorded(bank), 100 + number, share)
            results[name] = figures(recordings, transcripts(server, recordings))
        silent = [compose_silence(rng, seconds=rng.uniform(0.5, 20)) for _ in range(round(40 * share))]
        invented = [bool(transcript.text) for transcript in transcripts(server, silent)]
        results["nobody speaks"] = {"with text %": 100 * float(np.mean(invented))}
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=str(DEMO_MODEL))
    parser.add_argument("--aligner", default=str(DEMO_ALIGNER))
    parser.add_argument("--share", type=float, default=1.0, help="of the recordings")
    args = parser.parse_args()
    results = evaluate(args.model, args.aligner, args.share)
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
