"""Sizes in config.json: the package's values where they are missing, and refusals of what the engine cannot compute."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from backend.checkpoint.model_config import ModelConfig, model_config
from backend.errors import CheckpointRefused


@pytest.fixture
def config(asr_folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((asr_folder / "config.json").read_text())
    return found


def test_missing_keys_have_the_values_of_the_packages_classes() -> None:
    from qwen_asr.core.transformers_backend.configuration_qwen3_asr import (
        Qwen3ASRAudioEncoderConfig,
        Qwen3ASRTextConfig,
    )

    audio, text = Qwen3ASRAudioEncoderConfig(), Qwen3ASRTextConfig()
    found = model_config({"thinker_config": {"audio_token_id": 1}}, "recognizer")
    encoder, decoder = found.encoder, found.decoder
    assert (encoder.mels, encoder.layers, encoder.heads, encoder.ffn, encoder.width, encoder.output) == (
        audio.num_mel_bins, audio.encoder_layers, audio.encoder_attention_heads, audio.encoder_ffn_dim, audio.d_model,
        audio.output_dim,
    )  # fmt: skip
    assert (encoder.block_frames, encoder.window_frames) == (2 * audio.n_window, audio.n_window_infer)
    assert (encoder.most_blocks, encoder.channels) == (audio.conv_chunksize, audio.downsample_hidden_size)
    assert (decoder.vocab_size, decoder.hidden, decoder.ffn, decoder.layers) == (
        text.vocab_size, text.hidden_size, text.intermediate_size, text.num_hidden_layers,
    )  # fmt: skip
    assert (decoder.heads, decoder.kv_heads, decoder.head_size) == (
        text.num_attention_heads, text.num_key_value_heads, text.head_dim,
    )  # fmt: skip
    assert (decoder.norm_epsilon, decoder.rope_theta) == (text.rms_norm_eps, text.rope_theta)
    assert (decoder.bias, decoder.tied) == (text.attention_bias, text.tie_word_embeddings)


def test_the_demo_recogniser_is_read_as_it_is(config) -> None:
    found = model_config(config, "recognizer")
    assert (found.encoder.width, found.encoder.layers, found.encoder.block_frames, found.encoder.window_frames) == (
        128, 3, 100, 800,
    )  # fmt: skip
    assert (found.decoder.hidden, found.decoder.heads, found.decoder.kv_heads, found.decoder.head_size) == (
        192, 6, 2, 32,
    )  # fmt: skip
    assert (found.audio_token, found.classes, found.decoder.tied) == (541, 0, True)


def test_the_demo_aligner_has_its_classes_and_a_head_of_its_own(aligner_folder: Path) -> None:
    config = json.loads((aligner_folder / "config.json").read_text())
    found = model_config(config, "aligner")
    assert (found.classes, found.class_s) == (1000, 0.08)
    config["thinker_config"]["text_config"]["tie_word_embeddings"] = True
    assert not model_config(config, "aligner").decoder.tied


def read(config: dict[str, Any], part: str, **keys: Any) -> ModelConfig:
    changed = copy.deepcopy(config)
    changed["thinker_config"][part] |= keys
    return model_config(changed, "recognizer")


def test_null_key_heads_are_as_many_as_query_heads(config) -> None:
    assert read(config, "text_config", num_key_value_heads=None).decoder.kv_heads == 6


@pytest.mark.parametrize("rope", [None, {}, {"type": "default"}, {"rope_type": "default", "mrope_section": [8, 4, 4]}])
def test_rope_without_scaling_is_known_in_all_its_forms(config, rope: Any) -> None:
    assert read(config, "text_config", rope_scaling=rope) == model_config(config, "recognizer")


@pytest.mark.parametrize(
    ("part", "keys", "said"),
    [
        ("text_config", {"rope_scaling": {"rope_type": "yarn", "factor": 4}}, "type 'yarn'"),
        ("text_config", {"rope_scaling": {"type": "linear"}}, "type 'linear'"),
        ("text_config", {"rope_scaling": "x"}, "type 'x'"),
        ("text_config", {"rope_theta": True}, "'rope_theta'"),
        ("text_config", {"rope_theta": "1e6"}, "'rope_theta'"),
        ("text_config", {"rms_norm_eps": -1e-6}, "'rms_norm_eps'"),
        ("text_config", {"hidden_act": "gelu"}, "'gelu' is not known"),
        ("text_config", {"hidden_act": "unavailable"}, r"'\[…\]'"),  # the gateway acts on that word
        ("text_config", {"num_key_value_heads": 4}, "no multiple"),
        ("text_config", {"head_dim": 33}, "odd"),
        ("text_config", {"vocab_size": None}, "'vocab_size'"),
        ("text_config", {"num_hidden_layers": 2.0}, "'num_hidden_layers'"),
        ("audio_config", {"activation_function": "relu"}, "'relu' is not known"),
        ("audio_config", {"encoder_attention_heads": 5}, "'encoder_attention_heads'"),
        ("audio_config", {"n_window_infer": 99}, "'n_window_infer'"),
        ("audio_config", {"num_mel_bins": 0}, "'num_mel_bins'"),
    ],
)
def test_what_the_engine_does_not_compute_is_refused(config, part: str, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(CheckpointRefused, match=said):
        read(config, part, **keys)


@pytest.mark.parametrize("token", [None, "541", -1, True])
def test_an_audio_token_that_is_none_is_refused(config, token: Any) -> None:
    config["thinker_config"]["audio_token_id"] = token
    with pytest.raises(CheckpointRefused, match="'audio_token_id'"):
        model_config(config, "recognizer")


@pytest.mark.parametrize("part", ["audio_config", "text_config"])
def test_a_part_that_is_no_object_is_refused(config, part: str) -> None:
    config["thinker_config"][part] = [1]
    with pytest.raises(CheckpointRefused, match=f"'{part}' is no object"):
        model_config(config, "recognizer")
