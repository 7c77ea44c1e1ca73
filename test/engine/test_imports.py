"""A load and a transcription with words import torch and little else: what a first request waits for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Of torch, its compiler, which its own functions import when they are called in a certain way.
UNUSED = (
    "transformers", "accelerate", "qwen_asr", "scipy", "sklearn", "librosa", "numba", "nagisa", "dynet", "soynlp",
    "jinja2", "huggingface_hub", "requests", "sympy", "torch._dynamo", "torch._inductor",
)  # fmt: skip
LOADED = f"""
import json, sys
import numpy as np
from backend.engine.loader import CheckpointLoader
from backend.options.load_options import LoadOptions
from backend.serving.protocols import Passage, Utterance

options = LoadOptions(model="test/models/asr", forced_aligner="test/models/aligner", threads=1)
loader, noise = CheckpointLoader(), np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32)
loader.inspect(options)
loader.load_recognizer(options).recognize([Utterance(noise, None, "", 8)])
loader.load_aligner(options).align([Passage(noise, "The fox, 狐狸.", "en"), Passage(noise, "여우", "ko")])
print(json.dumps([name for name in {UNUSED} if name in sys.modules]))
"""


@pytest.mark.slow
def test_what_a_load_does_not_need_is_not_imported() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
