"""Composes the recordings in test/audio with their truth beside them: `python -m devtools.demo_models.recordings`.

New takes, which no training heard. Each NAME.json holds the text, the language, the voice and every word's start and
end in seconds, exact by construction.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import soundfile

from devtools.demo_models.speech import SAMPLE_RATE, ClipBank, Recording, compose, noise, speak
from devtools.demo_models.vocabulary import WORDS, written, written_units

FOLDER = Path("test/audio")
PANGRAM = [sentence.split() for sentence in (
    "the quick brown fox jumps over the lazy dog",
    "good morning",
    "please open the door and turn on the light",
    "thank you",
)]  # fmt: skip
DIGITS = [list("一二三四五"), list("六七八九零")]


def bank_of(voice: str, language: str, rng: np.random.Generator) -> ClipBank:
    """Two takes of every word by one voice."""
    takes = {
        word: [speak(voice, word, speed=int(rng.integers(120, 190)), pitch=int(rng.integers(30, 70))) for _ in range(2)]
        for word in WORDS[language]
    }
    return ClipBank({language: {voice: takes}})


def save(name: str, recording: Recording, voice: str, *, format_: str = "wav") -> None:
    soundfile.write(FOLDER / f"{name}.{format_}", recording.samples, SAMPLE_RATE)
    language = recording.language or ""
    truth = {
        "text": written(language, recording.words),
        "language": language,
        "voice": voice,
        "words": [
            [unit, round(start, 4), round(end, 4)]
            for sentence in recording.sentences
            for unit, (_, start, end) in zip(
                written_units(language, [word for word, _, _ in sentence]), sentence, strict=True
            )
        ],
    }
    (FOLDER / f"{name}.json").write_text(json.dumps(truth, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(2026)
    for name, voice, language, script in (
        ("demo", "en-us+f2", "en", PANGRAM),
        ("chinese", "cmn+m2", "zh", DIGITS),
        ("left_out", "en-gb+m5", "en", PANGRAM),
    ):
        bank = bank_of(voice, language, rng)
        save(name, compose(rng, bank, seconds=60, script=script, augment=False), voice)
    bank = bank_of("en-us+m3", "en", rng)
    save("long", compose(rng, bank, seconds=180, augment=False), "en-us+m3", format_="flac")
    hiss = 0.05 * noise(rng, 5 * SAMPLE_RATE)
    save("noise", Recording(hiss, None, []), "nobody")


if __name__ == "__main__":
    main()
