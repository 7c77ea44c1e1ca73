"""Requests with noise that no other request has, and the text that the fake recognizer makes of it.

The text is a hash of the samples, prompt and language, so a reply can only belong to its own request. Files are 32-bit
float WAVs at 16 kHz of at most one chunk: the samples arrive bit for bit, and the text is known in advance.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from backend.audio.waveform import SAMPLE_RATE, Samples
from backend.wire import backend_pb2 as pb
from devtools.server_process import ROOT
from devtools.stress.plan import prompt_for

AUDIO = ROOT / "test/audio"
ONE_CHUNK_S = 14.0  # below the default of max_chunk_seconds
CONTROL_TOKENS = (  # of the tokenizer: none may reach the recognizer in a prompt
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|audio_start|>", "<|audio_end|>", "<|audio_pad|>", "<asr_text>",
    "<timestamp>",
)  # fmt: skip
UNCLEAN = "A control token reached the recogniser."
_LEVEL, _MARK = 0.5, 0.75  # a mark is the first sample of a recording that faults are for


@dataclass(frozen=True)
class Request:
    """A recording to transcribe and the text that must come back."""

    path: Path
    text: str = ""
    prompt: str = ""
    language: str = ""
    times: bool = False

    @property
    def message(self) -> pb.TranscriptRequest:
        words = ["word"] if self.times else []
        return pb.TranscriptRequest(
            dst=str(self.path), prompt=self.prompt, language=self.language, diarize=True, timestamp_granularities=words
        )


def noise(seed: int, seconds: float, *, marked: bool = False) -> Samples:
    """The same samples for the same seed; shape (n,), within ±0.5 except for the mark."""
    samples = np.random.default_rng(seed).uniform(-_LEVEL, _LEVEL, round(seconds * SAMPLE_RATE)).astype(np.float32)
    if marked:
        samples[0] = _MARK
    return samples


def is_marked(samples: Samples) -> bool:
    return bool(samples.size and samples[0] == np.float32(_MARK))


def long_sound(path: Path, seconds: float, level: float = 0.0) -> Path:
    """Writes FLAC of whole minutes: silence, which compresses to nothing, or one second of noise, repeated."""
    if not path.exists():
        second = (np.random.default_rng(1).uniform(-level, level, SAMPLE_RATE) * 32767).astype(np.int16)
        with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1) as file:
            for _ in range(round(seconds / 60)):
                file.write(np.tile(second, 60))
    return path


def text_of(samples: Samples, prompt: str = "", language: str | None = None) -> str:
    """The fake recognizer's text; never empty."""
    if any(token in prompt for token in CONTROL_TOKENS):
        return UNCLEAN
    digest = hashlib.blake2b(np.ascontiguousarray(samples, np.float32).tobytes(), digest_size=8)
    digest.update(f"|{prompt}|{language or ''}".encode())
    return f"Heard {digest.hexdigest()}."


def noise_requests(folder: Path, seeds: Iterable[int], seconds: float, steps: int, *, times: bool = False,
                   marked: bool = False, language: str = "") -> list[Request]:  # fmt: skip
    """One recording of at most one chunk for each seed, which no other request has."""
    requests = []
    for seed in seeds:
        samples, prompt = noise(seed, seconds, marked=marked), prompt_for(steps, seed)
        path = folder / f"{seed}-{seconds:g}{'m' * marked}.wav"
        soundfile.write(path, samples, SAMPLE_RATE, subtype="FLOAT")
        requests.append(Request(path, text_of(samples, prompt, language or None), prompt, language, times))
    return requests
