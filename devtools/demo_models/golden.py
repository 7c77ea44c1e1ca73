"""Writes test/golden from what the demo aligner says of the recordings: `python -m devtools.demo_models.golden`.

Each file holds the aligner's units and what words and segments came of them, to be read by a person before it is
committed; test/transcript/test_golden.py replays it without a model.
"""

from __future__ import annotations

import json
from pathlib import Path

import soundfile

from backend.engine.loader import CheckpointLoader
from backend.options import LoadOptions
from backend.serving.protocols import Passage
from backend.transcript.segments import SegmentRules, merge
from backend.transcript.words import place

AUDIO, GOLDEN = Path("test/audio"), Path("test/golden")


def main() -> None:
    GOLDEN.mkdir(exist_ok=True)
    aligner = CheckpointLoader().load_aligner(
        LoadOptions(model="", forced_aligner="test/models/aligner", dtype="float32")
    )
    for name in ("demo", "chinese", "left_out"):
        samples, rate = soundfile.read(AUDIO / f"{name}.wav", dtype="float32")
        truth = json.loads((AUDIO / f"{name}.json").read_text(encoding="utf-8"))
        text, duration_s = truth["text"], samples.size / rate
        (units,) = aligner.align([Passage(samples, text, truth["language"])])
        units = [(unit, round(start_s, 3), round(end_s, 3)) for unit, start_s, end_s in units]
        words = place(text, units, start_s=0.0, end_s=duration_s)
        golden = {
            "text": text,
            "duration_s": duration_s,
            "units": units,
            "words": [[text[w.begin : w.end], round(w.start_s, 3), round(w.end_s, 3)] for w in words],
            "segments": [
                [text[s.begin : s.end], round(s.start_s, 3), round(s.end_s, 3), len(s.words)]
                for s in merge(text, words, SegmentRules())
            ],
        }
        rows = [f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in golden.items()]
        (GOLDEN / f"{name}.json").write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
