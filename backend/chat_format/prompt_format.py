"""The format of a prompt: system message, audio, and the beginning of the answer where a language is forced."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backend.chat_format.spelling import TEXT_TAG
from backend.languages import NAMES
from backend.serving.protocols import SAMPLE_RATE

PROMPT = (  # of one recording; the two official chat templates render the same for a system message and a recording
    "<|im_start|>system\n{system}<|im_end|>\n"
    "<|im_start|>user\n<|audio_start|><|audio_pad|><|audio_end|><|im_end|>\n"
    "<|im_start|>assistant\n"
)
MIN_SAMPLES = SAMPLE_RATE // 2  # half a second, as in Qwen's package: the encoder was trained on no less


def beginning(language: str | None) -> str:
    """How an answer in a forced language begins; "" for None. `language`: a code."""
    return "" if language is None else f"language {NAMES[language]}{TEXT_TAG}"


def pad_samples(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """At least MIN_SAMPLES: silence is appended to what is shorter."""
    return samples if samples.size >= MIN_SAMPLES else np.pad(samples, (0, MIN_SAMPLES - samples.size))
