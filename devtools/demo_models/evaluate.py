"""How well the demo checkpoints hear, through the backend's own way: `python -m devtools.demo_models.evaluate`.

New takes of the trained voices and of voices left out, composed into recordings of 1 s to 3 min that no training saw,
transcribed with default options. Prints word errors, languages and word boundaries, each beside its goal, and fails
if one is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import jiwer
import numpy as np
import soundfile

from backend.audio.decoding.pool import DecoderPool
from backend.engine.loader import CheckpointLoader
from backend.options import LoadOptions, TranscribeOptions
from backend.pipeline.transcriber import Transcriber, Transcript
from backend.serving.resident import Resident
from backend.serving.scheduler import Scheduler
from devtools.demo_models.speech import SAMPLE_RATE, ClipBank, Recording, compose, compose_silence

BANKS = Path("build/speech")
LENGTHS_S = ((1.0, 2.0, 16), (2.0, 5.0, 20), (5.0, 15.0, 16), (15.0, 40.0, 10), (60.0, 180.0, 4))


@dataclass
class EngineStats:
    """What was found on one group of voices."""

    words: int = 0
    errors: int = 0
    recordings: int = 0
    right_language: int = 0
    boundary_errors_s: list[float] = field(default_factory=list)

    def add(self, recording: Recording, transcript: Transcript) -> None:
        truth = [word for sentence in recording.sentences for word in sentence]
        heard = [(_bare(transcript.text[w.begin : w.end]), w) for s in transcript.segments for w in s.words]
        heard = [(text, word) for text, word in heard if text]
        report = jiwer.process_words(" ".join(w for w, _, _ in truth), " ".join(text for text, _ in heard) or "-")
        self.words += len(truth)
        self.errors += report.substitutions + report.deletions + report.insertions
        self.recordings += 1
        self.right_language += transcript.language == recording.language
        for part in report.alignments[0]:
            if part.type == "equal":
                for i, j in zip(
                    range(part.ref_start_idx, part.ref_end_idx),
                    range(part.hyp_start_idx, part.hyp_end_idx),
                    strict=True,
                ):
                    _, start, end = truth[i]
                    word = heard[j][1]
                    self.boundary_errors_s += [abs(word.start_s - start), abs(word.end_s - end)]

    def figures(self) -> dict[str, float]:
        edges = np.array(self.boundary_errors_s)
        return {
            "word errors %": 100 * self.errors / self.words,
            "language %": 100 * self.right_language / self.recordings,
            "boundary mean ms": 1000 * float(edges.mean()),
            "boundary p95 ms": 1000 * float(np.percentile(edges, 95)),
        }


def _bare(word: str) -> str:
    return "".join(c for c in word if c.isalnum()).lower()


# name -> (figure, at most) of the issue that asked for the demo models; language is "at least"
GOALS = {
    "trained voices": {"word errors %": 1, "language %": 99, "boundary mean ms": 40, "boundary p95 ms": 100},
    "voices left out": {"word errors %": 5, "language %": 99, "boundary mean ms": 60},
}


def recordings(bank: ClipBank, seed: int, share: float) -> Iterator[Recording]:
    rng = np.random.default_rng(seed)
    for low, high, count in LENGTHS_S:
        for _ in range(max(1, round(count * share))):
            yield compose(rng, bank, seconds=rng.uniform(low, high), augment=False)


async def evaluate(model: str, aligner: str, share: float) -> dict[str, dict[str, float]]:
    resident, scheduler, decoder_pool = Resident(CheckpointLoader()), Scheduler(), DecoderPool()
    await resident.load(LoadOptions(model=model, forced_aligner=aligner))
    transcriber = Transcriber(resident, scheduler, decoder_pool)
    wanted = TranscribeOptions(times=True, words=True)
    banks = {
        "trained voices": ClipBank.recorded(BANKS / "trained_again.npy", held_out=False, takes=1, seed=3),
        "voices left out": ClipBank.recorded(BANKS / "held_out.npy", held_out=True, takes=2, seed=4),
    }
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:

        async def transcript_of(recording: Recording) -> Transcript:
            path = Path(folder) / "recording.wav"
            soundfile.write(path, recording.samples, SAMPLE_RATE, subtype="PCM_16")
            return await transcriber.transcribe(str(path), wanted)

        for number, (name, bank) in enumerate(banks.items()):
            engine_stats = EngineStats()
            for recording in recordings(bank, 100 + number, share):
                engine_stats.add(recording, await transcript_of(recording))
            found[name] = engine_stats.figures()
        rng = np.random.default_rng(99)
        silent = [compose_silence(rng, seconds=rng.uniform(0.5, 20)) for _ in range(round(40 * share))]
        invented = [bool((await transcript_of(recording)).text) for recording in silent]
        found["nobody speaks"] = {"with text %": 100 * sum(invented) / len(invented)}
    decoder_pool.close()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="test/models/asr")
    parser.add_argument("--aligner", default="test/models/aligner")
    parser.add_argument("--share", type=float, default=1.0, help="of the recordings")
    args = parser.parse_args()
    found = asyncio.run(evaluate(args.model, args.aligner, args.share))
    missed = 0
    for name, figures in found.items():
        for figure, value in figures.items():
            goal = GOALS.get(name, {}).get(figure)
            good = goal is None or (value >= goal if figure == "language %" else value <= goal)
            missed += not good
            bound = "" if goal is None else f"   goal {'≥' if figure == 'language %' else '≤'} {goal}"
            print(f"{name:16} {figure:18} {value:8.2f}{bound}{'' if good else '   MISSED'}")
    print(json.dumps(found))
    return min(missed, 1)


if __name__ == "__main__":
    sys.exit(main())
