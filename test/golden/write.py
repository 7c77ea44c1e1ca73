"""Writes the files beside it from the demo aligner's output: `PYTHONPATH=. venv/bin/python test/golden/write.py`.

Each has the aligner's units of one recording and the words and segments made of them, to be read by a person before it
is committed; test/transcript/test_golden.py replays it without a model.
"""

from __future__ import annotations

import json
from pathlib import Path

import soundfile

from backend.engine.loader import CheckpointLoader
from backend.options.load_options import LoadOptions
from backend.serving.protocols import Passage
from backend.transcript.segments import SegmentRules, merge
from backend.transcript.words import place

FOLDER = Path(__file__).parent


def main() -> None:
    options = LoadOptions(model="", forced_aligner=str(FOLDER.parent / "models/aligner"), dtype="float32")
    aligner = CheckpointLoader().load_aligner(options)
    for path in sorted(FOLDER.glob("*.json")):
        audio = FOLDER.parent / "audio" / f"{path.stem}.wav"
        samples, rate = soundfile.read(audio, dtype="float32")
        truth = json.loads(audio.with_suffix(".json").read_text(encoding="utf-8"))
        text, duration_s = truth["text"], samples.size / rate
        (aligned,) = aligner.align([Passage(samples, text, truth["language"])])
        units = [(unit.text, round(unit.start_s, 3), round(unit.end_s, 3)) for unit in aligned]
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
        path.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
