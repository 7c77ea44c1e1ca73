"""Writes test/audio: the recordings, their truth, and the manifest of `make eval`'s demo set.

`python -m devtools.demo_models.recordings`. Nothing is augmented, no take was used in a training, and two seeds make it
all, so a second run writes the same bytes. NAME.json has the truth of the first five recordings. Those in set/ are
eight English and four Chinese ones of 3 to 14 s, half by voices of the training, half by voices held out of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from devtools.demo_models.speech import SAMPLE_RATE, ClipBank, Recording, compose, noise, speak
from devtools.demo_models.vocabulary import WORDS

FOLDER = Path("test/audio")
PANGRAM = [sentence.split() for sentence in (
    "the quick brown fox jumps over the lazy dog",
    "good morning",
    "please open the door and turn on the light",
    "thank you",
)]  # fmt: skip
DIGITS = [list("一二三四五"), list("六七八九零")]
# (language, held out?, seconds at most): short and long ones in every group, 102 s together
SET = (
    ("en", False, 3.6), ("en", False, 6.5), ("en", False, 9.5), ("en", False, 13.0),
    ("en", True, 4.2), ("en", True, 7.5), ("en", True, 10.5), ("en", True, 13.0),
    ("zh", False, 5.0), ("zh", False, 12.0), ("zh", True, 6.0), ("zh", True, 11.0),
)  # fmt: skip


def bank_of(voice: str, language: str, rng: np.random.Generator) -> ClipBank:
    """Two takes of every word by one voice."""
    takes = {
        word: [speak(voice, word, int(rng.integers(120, 190)), int(rng.integers(30, 70))) for _ in range(2)]
        for word in WORDS[language]
    }
    return ClipBank({language: {voice: takes}})


def single_recordings() -> Iterator[tuple[str, str, Recording]]:
    """File name, voice and recording."""
    rng = np.random.default_rng(2026)
    for name, voice, language, script in (
        ("demo.wav", "en-us+f2", "en", PANGRAM),
        ("chinese.wav", "cmn+m2", "zh", DIGITS),
        ("left_out.wav", "en-gb+m5", "en", PANGRAM),
    ):
        bank = bank_of(voice, language, rng)
        yield name, voice, compose(rng, bank, seconds=60, script=script, augment=False)
    bank = bank_of("en-us+m3", "en", rng)
    long = compose(rng, bank, seconds=180, augment=False)
    hiss = 0.05 * noise(rng, 5 * SAMPLE_RATE)
    yield "noise.wav", "nobody", Recording(hiss, None, [])
    yield "long.flac", "en-us+m3", long


def set_recordings() -> Iterator[tuple[str, str, Recording]]:
    """The same of SET, each by another voice."""
    rng = np.random.default_rng(20_260)
    banks = [ClipBank.recorded(name) for name in ("trained_again", "held_out")]
    used: set[str] = set()
    for number, (language, held_out, seconds) in enumerate(SET, 1):
        voices = banks[held_out].takes[language]
        voice = rng.choice([v for v in voices if v.partition("+")[2] not in used])
        used.add(voice.partition("+")[2])
        recording = compose(rng, ClipBank({language: {voice: voices[voice]}}), seconds=seconds, augment=False)
        yield f"set/{number:02}_{language}_{'left_out' if held_out else 'trained'}.flac", voice, recording


def main() -> None:
    (FOLDER / "set").mkdir(parents=True, exist_ok=True)
    lines = []
    for audio, voice, recording in (*single_recordings(), *set_recordings()):
        soundfile.write(FOLDER / audio, recording.samples, SAMPLE_RATE, subtype="PCM_16")
        truth = recording.truth()
        lines.append(json.dumps({"audio": audio, **truth}, ensure_ascii=False) + "\n")
        if audio.startswith("set/"):
            print(f"{audio:30} {recording.samples.size / SAMPLE_RATE:5.1f} s  {voice:16} {truth['text']}")
        else:
            beside = {"text": truth["text"], "language": truth["language"], "voice": voice, "words": truth["words"]}
            text = json.dumps(beside, ensure_ascii=False) + "\n"
            (FOLDER / audio).with_suffix(".json").write_text(text, encoding="utf-8")
    (FOLDER / "manifest.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
