"""Composes test/audio/set and writes test/audio/manifest.jsonl, the demo set of `make eval`:
`python -m devtools.demo_models.evalset`.

Eight English and four Chinese recordings of 3 to 14 s, half by voices that the demo models were trained on (in takes
that no training heard), half by voices left out; nothing is augmented. The manifest lists them after the recordings
that `devtools.demo_models.recordings` made. One seed makes them all, so a second run writes the same bytes.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import soundfile

from devtools.demo_models.evaluate import BANKS
from devtools.demo_models.recordings import FOLDER
from devtools.demo_models.speech import SAMPLE_RATE, ClipBank, Recording, compose
from devtools.demo_models.vocabulary import written, written_units

SEED = 20_260
EARLIER = ("demo.wav", "chinese.wav", "left_out.wav", "noise.wav", "long.flac")
# (language, left out?, seconds at most): short and long ones in every group, 102 s together
PLAN = (
    ("en", False, 3.6), ("en", False, 6.5), ("en", False, 9.5), ("en", False, 13.0),
    ("en", True, 4.2), ("en", True, 7.5), ("en", True, 10.5), ("en", True, 13.0),
    ("zh", False, 5.0), ("zh", False, 12.0), ("zh", True, 6.0), ("zh", True, 11.0),
)  # fmt: skip


def entry(audio: str, recording: Recording) -> dict[str, Any]:
    """A line of the manifest; times are rounded to 0.1 ms."""
    language = recording.language or ""
    words = [
        [unit, round(start, 4), round(end, 4)]
        for sentence in recording.sentences
        for unit, (_, start, end) in zip(
            written_units(language, [word for word, _, _ in sentence]), sentence, strict=True
        )
    ]
    return {"audio": audio, "text": written(language, recording.words), "language": language, "words": words}


def earlier(name: str) -> dict[str, Any]:
    """The line of a recording that has its truth in a .json beside it."""
    truth = json.loads((FOLDER / name).with_suffix(".json").read_text(encoding="utf-8"))
    return {"audio": name, "text": truth["text"], "language": truth["language"], "words": truth["words"]}


def composed() -> list[dict[str, Any]]:
    """Writes the recordings of PLAN, each by another voice, and returns their lines."""
    rng = np.random.default_rng(SEED)
    banks = {
        False: ClipBank.recorded(BANKS / "trained_again.npy", held_out=False, takes=1, seed=3),
        True: ClipBank.recorded(BANKS / "held_out.npy", held_out=True, takes=2, seed=4),
    }
    lines: list[dict[str, Any]] = []
    spoken: set[str] = set()
    for number, (language, left_out, seconds) in enumerate(PLAN, 1):
        voices = banks[left_out].takes[language]
        voice = rng.choice([v for v in voices if v.partition("+")[2] not in spoken])
        spoken.add(voice.partition("+")[2])
        bank = ClipBank({language: {voice: voices[voice]}})
        recording = compose(rng, bank, seconds=seconds, augment=False)
        audio = f"set/{number:02}_{language}_{'left_out' if left_out else 'trained'}.flac"
        soundfile.write(FOLDER / audio, recording.samples, SAMPLE_RATE, subtype="PCM_16")
        lines.append(entry(audio, recording))
        print(f"{audio:30} {recording.samples.size / SAMPLE_RATE:5.1f} s  {voice:16} {lines[-1]['text']}")
    return lines


def main() -> None:
    (FOLDER / "set").mkdir(parents=True, exist_ok=True)
    lines = [earlier(name) for name in EARLIER] + composed()
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (FOLDER / "manifest.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
