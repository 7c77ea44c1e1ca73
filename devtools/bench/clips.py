"""The bench's audio: pieces of a recording in which somebody speaks, so that a detector of speech keeps them whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from devtools.bench.shapes import ROOT

CLIP_S = 11.0
LONG_S, LONGEST_S = 180.0, 1200.0
_SOURCE = ROOT / "test/audio/long.flac"
_FOLDER = ROOT / "build/bench/audio"
_STRIDE_S = 5.0  # between the beginnings of two clips: no two are alike


def clip(number: int, seconds: float = CLIP_S) -> Path:
    """The clip with this number, as a file; from 0, and as long as the source lasts."""
    return _cut(_STRIDE_S * number, seconds)


def recording(seconds: float) -> Path:
    """The source from its beginning, over and over where it is shorter."""
    return _cut(0.0, seconds)


def pieces(seconds: float, piece_s: float) -> list[Path]:
    """The same recording in pieces of at most `piece_s`, cut wherever that falls."""
    starts = np.arange(0.0, seconds, piece_s)
    return [_cut(float(start), min(piece_s, seconds - float(start))) for start in starts]


def _cut(start_s: float, seconds: float) -> Path:
    path = _FOLDER / f"{start_s:g}-{seconds:g}.wav"
    if not path.exists():
        samples, rate = soundfile.read(_SOURCE, dtype="int16")
        first, size = round(start_s * rate), round(seconds * rate)
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.resize(np.roll(samples, -first), size), rate)
    return path
