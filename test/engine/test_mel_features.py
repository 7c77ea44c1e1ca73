"""Mel features are, to the bit, those of the feature extractor that Qwen's package takes from transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from transformers import WhisperFeatureExtractor

from backend.engine.mel_features import MelFeatures
from backend.errors import CheckpointRefused

QWEN = {"feature_size": 128, "sampling_rate": 16_000, "hop_length": 160, "n_fft": 400}


def theirs(config: dict[str, Any], samples: np.ndarray) -> torch.Tensor:
    extractor = WhisperFeatureExtractor.from_dict(config)
    found = extractor(samples, sampling_rate=16_000, padding=True, truncation=False, return_tensors="pt")
    features: torch.Tensor = found["input_features"][0]
    return features


@pytest.mark.parametrize("samples", [8000, 8001, 16_000, 80_161, 240_000, 700_003])
@pytest.mark.parametrize("config", [QWEN, {}, QWEN | {"n_fft": 512, "hop_length": 128, "feature_size": 80}], ids=str)
def test_they_are_equal_to_the_bit(config: dict[str, Any], samples: int) -> None:
    noise = np.random.default_rng(samples).normal(0, 0.1, samples).astype(np.float32)
    mels = config.get("feature_size", 80)
    found = MelFeatures(config, mels)(noise)
    assert found.shape == (mels, samples // config.get("hop_length", 160))
    assert torch.equal(found, theirs(config, noise))


def test_so_are_those_of_speech_and_of_silence(asr_folder: Path, recordings: Path) -> None:
    config = json.loads((asr_folder / "preprocessor_config.json").read_text())
    speech, _ = soundfile.read(recordings / "demo.wav", dtype="float32")
    for samples in (speech, np.zeros(16_000, np.float32)):
        assert torch.equal(MelFeatures(config, 128)(samples), theirs(config, samples))


def test_they_do_not_depend_on_the_default_dtype() -> None:
    noise = np.random.default_rng(1).normal(0, 0.1, 16_000).astype(np.float32)
    wanted = MelFeatures(QWEN, 128)(noise)
    torch.set_default_dtype(torch.bfloat16)
    try:
        assert torch.equal(MelFeatures(QWEN, 128)(noise), wanted)
    finally:
        torch.set_default_dtype(torch.float32)


def test_dither_that_a_file_asks_for_is_noise_of_its_size() -> None:
    silence = np.zeros(16_000, np.float32)
    torch.manual_seed(3)
    found = MelFeatures(QWEN | {"dither": 0.5}, 128)(silence)
    torch.manual_seed(3)
    assert torch.equal(found, theirs(QWEN | {"dither": 0.5}, silence))
    assert not torch.equal(found, MelFeatures(QWEN, 128)(silence))


@pytest.mark.parametrize(
    ("config", "said"), [({"sampling_rate": 8000}, "16000 samples a second"), ({"feature_size": 80}, "128 mel bins")]
)
def test_features_for_another_model_are_refused(config: dict[str, Any], said: str) -> None:
    with pytest.raises(CheckpointRefused, match=said):
        MelFeatures(QWEN | config, 128)
