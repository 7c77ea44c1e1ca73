"""Twenty kinds of synthetic sound without speech, to find out whether a model hallucinates text.

A kind is a function of a random generator and a number of samples at 16 kHz. `sound` seeds the generator from the
kind's name, so that every caller gets the same samples, and only `sound` sets the level.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 16_000
Wave = NDArray[np.float64]
Kind = Callable[[np.random.Generator, int], Wave]

DTMF_LOW, DTMF_HIGH = (697.0, 770.0, 852.0, 941.0), (1209.0, 1336.0, 1477.0)
MELODY = (196.0, 246.9, 293.7, 392.0, 329.6, 293.7, 246.9, 220.0)
CHORDS = ((130.8, 164.8, 196.0), (110.0, 130.8, 164.8), (87.3, 110.0, 130.8), (98.0, 123.5, 146.8))
FADE = np.minimum(1, np.minimum(np.arange(SAMPLE_RATE), np.arange(SAMPLE_RATE)[::-1]) / 400)
BELL = ((0.5, 0.6), (1, 1), (1.19, 0.8), (1.5, 0.5), (2, 0.7), (2.74, 0.3), (3.76, 0.2))  # ratio, amplitude


def sound(kind: str, *, seconds: float, level: float) -> NDArray[np.float32]:
    """(n,) float32 mono at 16 kHz of a kind of KINDS, its peak at `level` in (0, 1]; "digital silence" is all zeros.

    Raises KeyError for a kind that is not in KINDS and ValueError for a length or level out of range.
    """
    size = round(seconds * SAMPLE_RATE)
    if size < 1 or not 0 < level <= 1:
        raise ValueError(f"a sound needs a length above 0 s and a level in (0, 1], not {seconds} s and {level}")
    wave = KINDS[kind](np.random.default_rng(zlib.crc32(kind.encode())), size)
    peak = np.abs(wave).max()
    return (wave * (level / peak if peak > 0 else 0.0)).astype(np.float32)


def usual_length_s(kind: str) -> float:
    """The length of a kind of KINDS in the evaluation: 4 to 8 s, by its place in the table."""
    return 4.0 + list(KINDS).index(kind) % 5


def _seconds(size: int) -> Wave:
    return np.arange(size) / SAMPLE_RATE


def _tones(size: int, *partials: tuple[float, float]) -> Wave:
    """The sum of sines, given as (Hz, amplitude)."""
    t = _seconds(size)
    return np.asarray(np.sum([a * np.sin(2 * np.pi * f * t) for f, a in partials], axis=0, dtype=np.float64))


def _noise(
    rng: np.random.Generator, size: int, *, slope: float = 0.0, low_hz: float = 0.0, high_hz: float = math.inf
) -> Wave:
    """Gaussian noise of unit power in a band; amplitude falls as 1 / frequency ** slope (0.5 pink, 1 brown)."""
    spectrum, hz = np.fft.rfft(rng.standard_normal(size)), np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    spectrum /= np.maximum(np.arange(hz.size), 1) ** slope
    wave: Wave = np.fft.irfft(np.where((hz >= low_hz) & (hz <= high_hz), spectrum, 0), size)
    return wave / max(float(wave.std()), 1e-12)


def _each(size: int, period_s: float) -> range:
    """The numbers of the periods."""
    return range(int(size / SAMPLE_RATE / period_s) + 1)


def _repeated(size: int, period_s: float, *sounds: Wave) -> Wave:
    """The sounds in turn, one every `period_s`, over each other where they are longer."""
    wave = np.zeros(size)
    for i in _each(size, period_s):
        start = min(size, round(period_s * i * SAMPLE_RATE))
        sound = sounds[i % len(sounds)][: size - start]
        wave[start : start + sound.size] += sound
    return wave


def _impulses(rng: np.random.Generator, size: int, count: int, least: float, signs: Sequence[int] = (1,)) -> Wave:
    """At least one sample of least..1 at a random place; zeros between them."""
    wave = np.zeros(size)
    at = rng.integers(0, size, max(1, count))
    wave[at] = rng.uniform(least, 1, at.size) * (rng.choice(signs, at.size) if len(signs) > 1 else 1)
    return wave


def _sweep(_rng: np.random.Generator, size: int) -> Wave:
    """From 50 Hz to 7 kHz, linearly."""
    t = _seconds(size)
    return np.asarray(np.sin(2 * np.pi * (50 * t + (7000 - 50) / 2 * t**2 / max(t[-1], 1 / SAMPLE_RATE))))


def _rain(rng: np.random.Generator, size: int) -> Wave:
    """Hiss, and 150 drops a second, each a short burst."""
    burst = rng.standard_normal(80) * np.exp(-np.arange(80) / 15)
    drops = _impulses(rng, size, round(150 * size / SAMPLE_RATE), 0.3)
    return 0.15 * _noise(rng, size, low_hz=1000, high_hz=8000) + np.convolve(drops, burst)[:size]


def _wind(rng: np.random.Generator, size: int) -> Wave:
    """Low noise that swells and sinks, with a whistle in its gusts."""
    t = _seconds(size)
    gust = 0.55 + 0.3 * np.sin(2 * np.pi * 0.23 * t + 1) + 0.15 * np.sin(2 * np.pi * 0.61 * t)
    rumble, whistle = (_noise(rng, size, low_hz=low, high_hz=high) for low, high in ((40, 500), (600, 1100)))
    return np.asarray(gust * rumble + 0.3 * gust**3 * whistle)


def _engine(rng: np.random.Generator, size: int) -> Wave:
    """Four cylinders at an unsteady 1500 revolutions a minute, and the noise of each ignition."""
    t = _seconds(size)
    phase = 2 * np.pi * (50 * t + 0.4 * np.sin(2 * np.pi * 0.7 * t))
    tones = np.sum([np.cos(n * phase) / n for n in range(1, 12)], axis=0, dtype=np.float64)
    return np.asarray(tones + 0.4 * np.maximum(np.cos(phase), 0) ** 4 * _noise(rng, size, low_hz=200, high_hz=3000))


def _string(rng: np.random.Generator, hz: float, seconds: float) -> Wave:
    """Karplus-Strong synthesis: a burst of noise in a delay line that averages neighbours."""
    line = rng.uniform(-1, 1, round(SAMPLE_RATE / hz))
    periods = []
    for _ in range(round(seconds * hz)):
        periods.append(line)
        line = 0.498 * (line + np.roll(line, 1))
    return np.concatenate(periods)


def _drums(rng: np.random.Generator, size: int) -> Wave:
    """Kick, hi-hat, snare, hi-hat at 110 beats a minute."""
    t = _seconds(4000)
    kick = 1.5 * np.sin(2 * np.pi * (45 * t + 3 * (1 - np.exp(-t / 0.03)))) * np.exp(-t / 0.09)
    snare = rng.standard_normal(3000) * np.exp(-np.arange(3000) / 700) * 0.5
    hat = np.diff(rng.standard_normal(801)) * np.exp(-np.arange(800) / 150) * 0.25
    return _repeated(size, 60 / 110 / 2, kick, hat, snare, hat)


def _siren(_rng: np.random.Generator, size: int) -> Wave:
    """Between 600 and 1400 Hz and back, once in two seconds."""
    phase = 2 * np.pi * np.cumsum(1000 - 400 * np.cos(np.pi * _seconds(size))) / SAMPLE_RATE
    return np.asarray(np.sin(phase) + 0.3 * np.sin(2 * phase))


KINDS: dict[str, Kind] = {
    "digital silence": lambda _rng, size: np.zeros(size),
    "dither": lambda rng, size: rng.integers(0, 2, size).astype(np.float64) - rng.integers(0, 2, size),  # of one LSB
    "white noise": lambda rng, size: _noise(rng, size),
    "pink noise": lambda rng, size: _noise(rng, size, slope=0.5),
    "brown noise": lambda rng, size: _noise(rng, size, slope=1.0),
    "mains hum": lambda _rng, size: _tones(size, *((50.0 * n, 1 / n**1.5) for n in (1, 2, 3, 4, 5, 7, 9, 11))),
    "pure tone": lambda _rng, size: _tones(size, (1000.0, 1.0)),
    "keypad tones": lambda rng, size: _repeated(  # DTMF: pairs of a low and a high tone, as a telephone dials
        size, 0.2, *(_tones(1920, (rng.choice(DTMF_LOW), 1), (rng.choice(DTMF_HIGH), 1)) for _ in _each(size, 0.2))
    ),
    "sweep": _sweep,
    "clicks": lambda rng, size: _impulses(rng, size, size // 2000, 0.2, signs=(-1, 1)),
    "metronome": lambda _rng, size: _repeated(  # 120 beats a minute, the first of four higher
        size, 0.5, *(_tones(800, (hz, 1.0)) * np.exp(-_seconds(800) / 0.008) for hz in (2000.0, *[1500.0] * 3))
    ),
    "rain": _rain,
    "wind": _wind,
    "engine": _engine,
    "room tone": lambda rng, size: (  # air and a distant fan
        _noise(rng, size, slope=0.6) + 0.2 * _noise(rng, size, low_hz=300, high_hz=4000) + 0.3 * _tones(size, (118, 1))
    ),
    "guitar": lambda rng, size: _repeated(
        size, 0.3, *(_string(rng, MELODY[i % len(MELODY)], 1.2) for i in _each(size, 0.3))
    ),
    "organ": lambda _rng, size: _repeated(  # four chords of a second each, every pipe with its octaves
        size, 1.0, *(FADE * _tones(16_000, *((f * m, 1 / m) for f in chord for m in (1, 2, 4, 8))) for chord in CHORDS)
    ),
    "drums": _drums,
    "bell": lambda _rng, size: _repeated(  # inharmonic partials of a church bell, struck every 1.5 s
        size, 1.5, _tones(64_000, *((220 * ratio, a) for ratio, a in BELL)) * np.exp(-_seconds(64_000) / 1.1)
    ),
    "siren": _siren,
}
