"""Synthetic speech whose truth is known: single words by espeak-ng, composed into recordings.

A clip is one word at 16 kHz without the silence around it. A recording is clips on a time line, so every word's start
and end are exact. All randomness comes from the caller's generator, so the order of its calls is part of the result.
"""

from __future__ import annotations

import functools
import io
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from devtools.demo_models.vocabulary import WORDS

Samples = NDArray[np.float32]
SAMPLE_RATE = 16_000
BANKS = {"train": (False, 2, 1), "trained_again": (False, 1, 3), "held_out": (True, 2, 4)}  # held out?, takes, seed

# Whispers, robots and creaking voices carry too little of what tells words apart; one voice in four is held out.
_VARIANTS = (
    "m1 m2 m3 m4 m5 m6 m7 m8 f1 f2 f3 f4 f5 adam Alex Alicia Andrea Andy Annie antonio aunty belinda benjamin boris "
    "caleb david Denis Diogo ed edward edward2 Gene Gene2 gustave Henrique Hugo iven iven2 iven3 iven4 Jacky john "
    "kaukovalta Lee linda marcelo Marco Mario max Michael michel miguel Mike Mr Nguyen pablo paul pedro quincy rob "
    "robert steph steph2 steph3 travis victor zac anika shelby sandro norbert klatt klatt2 klatt3 grandma grandpa"
).split()
_HELD_OUT_VARIANTS = ("m5", "f3", "john", "linda", "steph2", "victor", "benjamin")
_ENGLISH_ACCENTS = ("en-us", "en-gb", "en-gb-x-rp", "en-gb-scotland", "en-us-nyc", "en-029", "en-gb-x-gbcwmd")


def voices(language: str, *, held_out: bool) -> list[str]:
    """espeak-ng voice names: those of the training, or those that it never uses."""
    variants = [name for name in _VARIANTS if (name in _HELD_OUT_VARIANTS) == held_out]
    if language == "zh":
        return [*(() if held_out else ("cmn",)), *(f"cmn+{name}" for name in variants)]
    names = [f"{accent}+{name}" for name in variants for accent in ("en-us", "en-gb")]
    if not held_out:
        names += list(_ENGLISH_ACCENTS)
        names += [f"{accent}+{name}" for accent in _ENGLISH_ACCENTS[2:] for name in ("m2", "m7", "f2", "f4")]
    return names


def speak(voice: str, word: str, speed: int, pitch: int) -> Samples:
    """One word without the silence around it; empty where the voice produces no sound."""
    command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdout", word]
    wav = subprocess.run(command, check=True, capture_output=True).stdout
    spoken, rate = soundfile.read(io.BytesIO(wav), dtype="float32")
    samples: Samples = soxr.resample(spoken, rate, SAMPLE_RATE).astype(np.float32)
    loud = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max(initial=1e-9))
    return samples[loud[0] : loud[-1] + 1] if loud.size else samples[:0]


@dataclass
class ClipBank:
    """Takes of every word by every voice: takes[language][voice][word] is a list of clips."""

    takes: dict[str, dict[str, dict[str, list[Samples]]]]

    @classmethod
    def recorded(cls, name: str) -> ClipBank:
        """Loads one of BANKS from build/speech, or makes espeak-ng speak it and saves it there."""
        path = Path(f"build/speech/{name}.npy")
        if path.exists():
            return cls(np.load(path, allow_pickle=True).item())
        held_out, takes, seed = BANKS[name]
        rng = np.random.default_rng(seed)
        jobs = [
            (language, voice, word, int(rng.integers(105, 216)), int(rng.integers(15, 86)))
            for language, words in WORDS.items()
            for voice in voices(language, held_out=held_out)
            for word in words
            for _ in range(takes)
        ]
        bank: dict[str, dict[str, dict[str, list[Samples]]]] = {"en": {}, "zh": {}}
        with ThreadPoolExecutor(4) as pool:
            clips = pool.map(lambda job: speak(*job[1:]), jobs)
            for (language, voice, word, _, _), clip in zip(jobs, clips, strict=True):
                if clip.size > 800:  # shorter than 50 ms: this voice cannot say it
                    bank[language].setdefault(voice, {}).setdefault(word, []).append(clip)
        for language, words in WORDS.items():  # a voice must know every word
            bank[language] = {v: found for v, found in bank[language].items() if len(found) == len(words)}
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.array(bank, dtype=object), allow_pickle=True)
        return cls(bank)


class Spoken(NamedTuple):
    word: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Recording:
    """Samples with their truth. `language` is None where nobody speaks."""

    samples: Samples
    language: str | None
    sentences: list[list[Spoken]]

    @property
    def spoken(self) -> list[Spoken]:
        return [spoken for sentence in self.sentences for spoken in sentence]

    @property
    def written(self) -> list[list[Spoken]]:
        """The aligner's units, by sentences: bare words, the first English one of a sentence with its capital."""
        return [[first._replace(word=first.word.capitalize()), *others] for first, *others in self.sentences]

    @property
    def units(self) -> list[Spoken]:
        return [unit for sentence in self.written for unit in sentence]

    @property
    def text(self) -> str:
        """`Open the door. Stop.` or `一二三。四五。`."""
        space, stop = ("", "。") if self.language == "zh" else (" ", ".")
        return space.join(space.join(unit.word for unit in sentence) + stop for sentence in self.written)

    def truth(self) -> dict[str, Any]:
        """Text, language and words; times rounded to 0.1 ms."""
        words = [[unit, round(start_s, 4), round(end_s, 4)] for unit, start_s, end_s in self.units]
        return {"text": self.text, "language": self.language or "", "words": words}


@functools.cache
def _noise_bed(colour: int) -> Samples:
    """33 s of unit-power noise, white (0) to brown (7)."""
    rng = np.random.default_rng(colour)
    spectrum = np.fft.rfft(rng.standard_normal(2**19))
    spectrum /= np.maximum(np.arange(spectrum.size), 1) ** (colour / 7)
    bed = np.fft.irfft(spectrum)
    return np.asarray(bed / bed.std(), np.float32)


def noise(rng: np.random.Generator, size: int) -> Samples:
    """`size` samples of unit-power noise of a random colour, from a random place."""
    bed = np.roll(_noise_bed(int(rng.integers(8))), int(rng.integers(2**19)))
    return np.resize(bed, size)


def compose(
    rng: np.random.Generator,
    bank: ClipBank,
    *,
    seconds: float,
    script: list[list[str]] | None = None,
    augment: bool = True,
) -> Recording:
    """A recording by one voice: of `seconds` at most, in sentences of 1 to 9 random words, or of a `script`.

    Pauses of 20 to 220 ms stand between words and of 0.5 to 1 s between sentences.
    """
    language = "zh" if rng.random() < 0.25 else "en"
    language = language if language in bank.takes else next(iter(bank.takes))
    by_voice = list(bank.takes[language].values())
    takes = by_voice[rng.integers(len(by_voice))]
    words = list(takes)
    tract = rng.uniform(0.9, 1.12) if augment and rng.random() < 0.6 else 1.0
    low, high = sorted(rng.uniform(0.02, 0.22, 2)) if augment else (0.03, 0.2)
    pieces: list[tuple[int, Samples]] = []
    at = rng.uniform(0.0, min(0.8, 0.3 * seconds))
    sentences: list[list[Spoken]] = []
    while len(sentences) < len(script) if script else (not pieces or at < seconds - 0.4):
        sentence: list[Spoken] = []
        for planned in script[len(sentences)] if script else [""] * int(rng.integers(1, 10)):
            word = planned or words[rng.integers(len(words))]
            clip = takes[word][rng.integers(len(takes[word]))]
            if tract != 1.0:
                factor = tract * rng.uniform(0.98, 1.02)  # times as fast: another vocal tract, another pitch
                clip = np.interp(np.arange(0, clip.size - 1, factor), np.arange(clip.size), clip).astype(np.float32)
            if not script and pieces and at + clip.size / SAMPLE_RATE > seconds:
                break
            start = round(at * SAMPLE_RATE)
            pieces.append((start, clip * rng.uniform(0.6, 1.0)))
            sentence.append(Spoken(word, start / SAMPLE_RATE, (start + clip.size) / SAMPLE_RATE))
            at = sentence[-1].end_s + rng.uniform(low, high)
        if not sentence:
            break
        sentences.append(sentence)
        at = sentence[-1].end_s + rng.uniform(0.48, 1.05)
    last = pieces[-1][0] + pieces[-1][1].size
    samples = np.zeros(last + round(rng.uniform(0.0, 0.8) * SAMPLE_RATE), np.float32)
    for start, clip in pieces:
        samples[start : start + clip.size] += clip
    return Recording(_through_microphone(rng, samples, augment=augment), language, sentences)


def _through_microphone(rng: np.random.Generator, samples: Samples, *, augment: bool) -> Samples:
    """Tilts the spectrum, adds noise, sets a level."""
    power = samples.std() + 1e-9
    if augment and rng.random() < 0.5:  # one-pole tilt: dull or bright microphones
        samples = samples + rng.uniform(-0.6, 0.6) * np.concatenate([[0.0], samples[:-1]]).astype(np.float32)
    if rng.random() < 0.8:
        snr_db = rng.uniform(12, 50)
        samples = samples + noise(rng, samples.size) * power * 10 ** (-snr_db / 20)
    level = 10 ** rng.uniform(-1.7, 0) if augment else rng.uniform(0.1, 0.9)
    return np.asarray(samples * (level / (np.abs(samples).max() + 1e-9)), np.float32)


def compose_silence(rng: np.random.Generator, *, seconds: float) -> Recording:
    """A recording in which nobody speaks: silence, noise, hum, tones, chords, clicks."""
    size = round(seconds * SAMPLE_RATE)
    t = np.arange(size) / SAMPLE_RATE
    samples = np.zeros(size, np.float32)
    kind = rng.integers(6)
    if kind in (1, 4, 5):
        samples += noise(rng, size)
    if kind == 2:
        samples += sum(np.sin(2 * np.pi * rng.uniform(50, 4000) * t) for _ in range(rng.integers(1, 5)))
    if kind == 3:  # chords that change: music without a voice
        for start in range(0, size, SAMPLE_RATE // 2):
            part = slice(start, start + SAMPLE_RATE // 2)
            decay = np.exp(-4 * (t[part] - t[start]))
            samples[part] += decay * sum(np.sin(2 * np.pi * rng.uniform(80, 1500) * t[part]) for _ in range(3))
    if kind == 4:
        samples *= (rng.random(size // 1600 + 1) < 0.3).repeat(1600)[:size]
    if kind == 5:
        samples *= 1 + np.sin(2 * np.pi * rng.uniform(0.2, 3) * t)
    level = 10 ** rng.uniform(-3.5, 0)
    return Recording(np.asarray(samples * (level / (np.abs(samples).max() + 1e-9)), np.float32), None, [])
