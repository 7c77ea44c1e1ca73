"""Sound that nobody else has, and the text that the fakes make of it.

The text is a hash of the samples, the prompt and the language that reached the recogniser: a reply can only belong to
its own request. Files are 32 bit float WAVs at 16 kHz of at most one chunk, so that the samples arrive bit by bit as
they were written and the text is known beforehand; noise never reaches the level of a mark, so no file is marked by
chance.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import soundfile

from backend.audio.waveform import SAMPLE_RATE, Samples

ONE_CHUNK_S = 14.0  # below max_chunk_seconds' default
_LEVEL = 0.5
CONTROL_TOKENS = (  # as the tokenizer knows them: none may reach the recogniser in a prompt
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|audio_start|>", "<|audio_end|>", "<|audio_pad|>", "<asr_text>",
    "<timestamp>",
)  # fmt: skip
UNCLEAN = "A control token reached the recogniser."
MARK = 0.75  # the first sample of what a fault plan is to fail on


def noise(seed: int, seconds: float, *, marked: bool = False) -> Samples:
    """The same for the same seed; shape (n,), within ±0.5 but for the mark."""
    samples = np.random.default_rng(seed).uniform(-_LEVEL, _LEVEL, round(seconds * SAMPLE_RATE)).astype(np.float32)
    if marked:
        samples[0] = MARK
    return samples


def is_marked(samples: Samples) -> bool:
    return bool(samples.size and samples[0] == np.float32(MARK))


def write(path: Path, samples: Samples) -> Path:
    soundfile.write(path, samples, SAMPLE_RATE, subtype="FLOAT")
    return path


def long_sound(path: Path, seconds: float, level: float = 0.0) -> Path:
    """FLAC of whole minutes: silence, which takes no room at all, or noise that repeats every second."""
    if not path.exists():
        second = (np.random.default_rng(1).uniform(-level, level, SAMPLE_RATE) * 32767).astype(np.int16)
        with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1) as file:
            for _ in range(round(seconds / 60)):
                file.write(np.tile(second, 60))
    return path


def text_of(samples: Samples, prompt: str = "", language: str | None = None) -> str:
    """What the fake recogniser hears. Never empty: whatever was decoded has a text."""
    if any(token in prompt for token in CONTROL_TOKENS):
        return UNCLEAN
    digest = hashlib.blake2b(np.ascontiguousarray(samples, np.float32).tobytes(), digest_size=8)
    digest.update(f"|{prompt}|{language or ''}".encode())
    return f"Heard {digest.hexdigest()}."
