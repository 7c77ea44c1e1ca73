"""Backgrounds to mix under speech: music and babble, made from nothing but a generator and a bank of clips.

A background has unit power. As in speech.py all randomness comes from the caller's generator.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from devtools.demo_models.speech import SAMPLE_RATE, ClipBank, Recording, Samples

BACKGROUNDS = ("music", "babble")

_CHORDS = ((0, 4, 7), (9, 12, 16), (5, 9, 12), (7, 11, 14))  # I vi IV V, in semitones above the key
_HARMONICS = 8
_TALKERS = 6


def background(kind: str, rng: np.random.Generator, bank: ClipBank, size: int) -> Samples:
    """`size` samples of one of BACKGROUNDS."""
    return music(rng, size) if kind == "music" else babble(rng, bank, size)


def music(rng: np.random.Generator, size: int) -> Samples:
    """A band without a singer: sustained chords, a bass, a plucked melody and drums, in one key and tempo."""
    beat = round(SAMPLE_RATE * 60 / rng.uniform(80, 140))
    key_hz = rng.uniform(110, 220)
    samples = np.zeros(size + 4 * beat)
    for number, start in enumerate(range(0, size, beat)):
        chord = _CHORDS[number // 4 % len(_CHORDS)]
        if number % 4 == 0:
            for semitones in chord:
                _add(samples, start, 0.25 * _tone(key_hz * 2 ** (semitones / 12), 4 * beat, attack_s=0.05))
        _add(samples, start, 0.6 * _tone(key_hz / 2 * 2 ** (chord[0] / 12), beat, decay_s=0.4))
        for eighth in (start, start + beat // 2):
            semitones = chord[rng.integers(3)] + 12
            _add(samples, eighth, 0.3 * _tone(key_hz * 2 ** (semitones / 12), beat, decay_s=0.25))
            _add(samples, eighth, 0.15 * _hit(rng, beat // 4, decay_s=0.02))  # hi-hat
        drum = _kick(beat) if number % 2 == 0 else 0.4 * _hit(rng, beat // 2, decay_s=0.08)  # a snare in between
        _add(samples, start, drum)
    return _unit_power(samples[:size])


def babble(rng: np.random.Generator, bank: ClipBank, size: int) -> Samples:
    """Several voices of the bank that talk at once, each of them nearly without pauses."""
    samples = np.zeros(size)
    voices = [takes for by_voice in bank.takes.values() for takes in by_voice.values()]
    for _ in range(_TALKERS):
        takes = voices[rng.integers(len(voices))]
        words = list(takes)
        at, loudness = -int(rng.integers(SAMPLE_RATE)), rng.uniform(0.5, 1.0)
        while at < size:
            clips = takes[words[rng.integers(len(words))]]
            clip = clips[rng.integers(len(clips))][max(0, -at) :]
            _add(samples, max(0, at), loudness * clip)
            at = max(0, at) + clip.size + round(rng.uniform(0.0, 0.15) * SAMPLE_RATE)
    return _unit_power(samples)


def mixed(recording: Recording, under: Samples, snr_db: float) -> Recording:
    """The recording with a background of unit power under it, at this ratio to the power of its words."""
    words = [
        recording.samples[round(word.start_s * SAMPLE_RATE) : round(word.end_s * SAMPLE_RATE)]
        for word in recording.spoken
    ]
    rms = float(np.sqrt(np.square(np.concatenate(words)).mean()))
    samples = recording.samples + under * rms * 10 ** (-snr_db / 20)
    return replace(recording, samples=np.asarray(samples * min(1.0, 0.9 / np.abs(samples).max()), np.float32))


def _tone(hz: float, size: int, *, attack_s: float = 0.005, decay_s: float = 4.0) -> Samples:
    """Harmonics that grow weaker with their number, as those of a string do."""
    t = np.arange(size) / SAMPLE_RATE
    orders = np.arange(1, _HARMONICS + 1)
    waves = np.sin(2 * np.pi * hz * t[:, None] * orders) @ (1 / orders)
    return np.asarray(waves * np.minimum(1, t / attack_s) * np.exp(-t / decay_s), np.float32)


def _hit(rng: np.random.Generator, size: int, *, decay_s: float) -> Samples:
    noise = np.diff(rng.standard_normal(size + 1))  # bright
    return np.asarray(noise * np.exp(-np.arange(size) / (decay_s * SAMPLE_RATE)), np.float32)


def _kick(size: int) -> Samples:
    t = np.arange(size) / SAMPLE_RATE
    return np.asarray(np.sin(2 * np.pi * (50 * t - 3 * np.exp(-t / 0.03))) * np.exp(-t / 0.12), np.float32)


def _add(samples: np.ndarray, start: int, clip: Samples) -> None:
    room = samples[start : start + clip.size]
    room += clip[: room.size]


def _unit_power(samples: np.ndarray) -> Samples:
    return np.asarray(samples / (samples.std() + 1e-9), np.float32)
