"""What the engine builds a model by: sizes and constants of config.json in the package's layout (see layout.py).

A key that is missing has the value that the package's classes give it (qwen-asr 0.0.6, configuration_qwen3_asr.py).
What the engine would compute otherwise than the model was trained is refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from backend.checkpoint.layout import Kind
from backend.errors import CheckpointRefused, named

_AUDIO_DEFAULTS = {
    "num_mel_bins": 128, "encoder_layers": 32, "encoder_attention_heads": 20, "encoder_ffn_dim": 5120, "d_model": 1280,
    "output_dim": 3584, "n_window": 100, "n_window_infer": 400, "conv_chunksize": 500, "downsample_hidden_size": 480,
}  # fmt: skip
_TEXT_DEFAULTS = {
    "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 22016, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 32, "head_dim": 128,
}  # fmt: skip
_ROPE_THETA, _NORM_EPSILON = 5e6, 1e-6


@dataclass(frozen=True)
class EncoderConfig:
    """`channels`: of the convolutions. `block_frames`: mel frames that they see at once, `window_frames`: whose tokens
    attend to each other. `most_blocks`: that the convolutions take in one call. `output`: the decoder's width.
    """

    mels: int
    layers: int
    heads: int
    ffn: int
    width: int
    output: int
    block_frames: int
    window_frames: int
    most_blocks: int
    channels: int


@dataclass(frozen=True)
class DecoderConfig:
    """`tied`: the LM head's weight is the embedding's. `bias`: of the attention's projections."""

    vocab_size: int
    hidden: int
    ffn: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    norm_epsilon: float
    rope_theta: float
    bias: bool
    tied: bool


@dataclass(frozen=True)
class ModelConfig:
    """`classes`: an aligner's time classes, of `class_s` seconds each; 0 for a recogniser."""

    encoder: EncoderConfig
    decoder: DecoderConfig
    audio_token: int
    classes: int = 0
    class_s: float = 0.0


def model_config(config: dict[str, Any], kind: Kind) -> ModelConfig:
    """`config`: what layout.package_config returns. Raises CheckpointRefused."""
    thinker = config["thinker_config"]
    audio_token = thinker.get("audio_token_id")
    if type(audio_token) is not int or audio_token < 0:
        raise CheckpointRefused("config.json of the checkpoint gives 'audio_token_id' a value that is no token")
    encoder, decoder = _encoder(_part(thinker, "audio_config")), _decoder(_part(thinker, "text_config"), kind)
    if kind == "recognizer":
        return ModelConfig(encoder, decoder, audio_token)
    classes = _size(thinker, "classify_num", None)
    return ModelConfig(encoder, decoder, audio_token, classes, float(config["timestamp_segment_time"]) / 1000)


def _encoder(audio: dict[str, Any]) -> EncoderConfig:
    mels, layers, heads, ffn, width, output, half_block, window, most_blocks, channels = (
        _size(audio, key, default) for key, default in _AUDIO_DEFAULTS.items()
    )
    if audio.get("activation_function", "gelu") != "gelu":
        raise _refusal(f"the encoder's activation '{named(str(audio['activation_function']))}' is not known here")
    if width % heads or width % 2 or width < 4:
        raise _refusal("'d_model' is no even multiple of 'encoder_attention_heads'")
    if window < 2 * half_block:
        raise _refusal("'n_window_infer' is less than twice 'n_window': a window would hold no token")
    return EncoderConfig(mels, layers, heads, ffn, width, output, 2 * half_block, window, most_blocks, channels)


def _decoder(text: dict[str, Any], kind: Kind) -> DecoderConfig:
    sizes = [_size(text, key, default) for key, default in _TEXT_DEFAULTS.items() if key != "num_key_value_heads"]
    vocab_size, hidden, ffn, layers, heads, head_size = sizes
    kv_heads = heads  # of a config that says null
    if text.get("num_key_value_heads", 0) is not None:
        kv_heads = _size(text, "num_key_value_heads", _TEXT_DEFAULTS["num_key_value_heads"])
    if heads % kv_heads or head_size % 2:
        raise _refusal("'num_attention_heads' is no multiple of 'num_key_value_heads', or 'head_dim' is odd")
    if text.get("hidden_act", "silu") != "silu":
        raise _refusal(f"the decoder's activation '{named(str(text['hidden_act']))}' is not known here")
    rope = text.get("rope_scaling") or {}
    rope_type = rope.get("rope_type", rope.get("type", "default")) if isinstance(rope, dict) else rope
    if rope_type != "default":
        raise _refusal(f"position embeddings of the type '{named(str(rope_type))}' are not known here")
    return DecoderConfig(
        vocab_size, hidden, ffn, layers, heads, kv_heads, head_size,
        norm_epsilon=_number(text, "rms_norm_eps", _NORM_EPSILON),
        rope_theta=_number(text, "rope_theta", _ROPE_THETA),
        bias=bool(text.get("attention_bias", False)),
        tied=kind == "recognizer" and bool(text.get("tie_word_embeddings", False)),
    )  # fmt: skip


def _part(thinker: dict[str, Any], key: str) -> dict[str, Any]:
    part = thinker.get(key)
    if part is not None and not isinstance(part, dict):
        raise _refusal(f"{key!r} is no object")
    return part or {}


def _size(part: dict[str, Any], key: str, default: int | None) -> int:
    value = part.get(key, default)
    if type(value) is not int or value < 1:
        raise _refusal(f"{key!r} is no whole number from 1 on")
    return value


def _number(part: dict[str, Any], key: str, default: float) -> float:
    value = part.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise _refusal(f"{key!r} is no number above 0")
    return float(value)


def _refusal(cause: str) -> CheckpointRefused:
    return CheckpointRefused(f"config.json of the checkpoint cannot be used: {cause}")
