"""The bench's audio: pieces of a recording of speech, so that VAD keeps them whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from devtools.server_process import ROOT

CLIP_S = 11.0
LONG_S, LONGEST_S = 180.0, 1200.0
_STRIDE_S = 5.0  # between the starts of two clips: no two are alike


def clip(number: int, seconds: float = CLIP_S) -> Path:
    """The clip with this number, from 0."""
    return _cut(_STRIDE_S * number, seconds)


def recording(seconds: float) -> Path:
    """The source from its start, repeated where it is shorter."""
    return _cut(0.0, seconds)


def pieces(seconds: float, piece_s: float) -> list[Path]:
    """The same recording in pieces of at most `piece_s`, cut anywhere."""
    starts = map(float, np.arange(0.0, seconds, piece_s))
    return [_cut(start, min(piece_s, seconds - start)) for start in starts]


def _cut(start_s: float, seconds: float) -> Path:
    path = ROOT / f"build/bench/audio/{start_s:g}-{seconds:g}.wav"
    if not path.exists():
        samples, rate = soundfile.read(ROOT / "test/audio/long.flac", dtype="int16")
        first, size = round(start_s * rate), round(seconds * rate)
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.resize(np.roll(samples, -first), size), rate)
    return path
