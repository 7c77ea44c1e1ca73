"""Validates a checkpoint's small JSON files before anything is built by them.

Rules: no key, at any depth, may name foreign code, and every size must be plausible. Nothing here runs code that a
checkpoint names. But other programs that read the same folder do: transformers fetches the kernels that a config names
as its attention (CVE-2026-4372), and the tests and tools of this repository hand checkpoints to it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from backend.checkpoint.files import fault_of
from backend.errors import CheckpointRefused, named

# Not validated: their keys are tokens of the vocabulary, or names of tensors.
_VOCABULARY = {"tokenizer.json", "vocab.json", "model.safetensors.index.json"}
_MAX_FILE_BYTES = 1 << 24
_FOREIGN_CODE_KEYS = {"auto_map", "_attn_implementation_internal", "custom_pipelines"}
_ATTENTION_KEYS = {"_attn_implementation", "attn_implementation"}
_KNOWN_ATTENTIONS = (None, "eager", "sdpa", "flash_attention_2")
# The largest plausible value of each size: several times what the 1.7B model has.
_MAX_SIZES = {
    "hidden_size": 1 << 14, "intermediate_size": 1 << 17, "num_hidden_layers": 256, "num_attention_heads": 512,
    "num_key_value_heads": 512, "head_dim": 1024, "vocab_size": 1 << 21, "max_position_embeddings": 1 << 23,
    "classify_num": 1 << 17, "num_labels": 1 << 17,
    "d_model": 1 << 14, "encoder_layers": 256, "encoder_attention_heads": 512, "encoder_ffn_dim": 1 << 17,
    "num_mel_bins": 512, "max_source_positions": 1 << 14, "output_dim": 1 << 14, "downsample_hidden_size": 1 << 14,
    "n_window": 1 << 14, "n_window_infer": 1 << 16, "conv_chunksize": 1 << 16,
    "feature_size": 512, "n_fft": 1 << 14, "hop_length": 1 << 14, "chunk_length": 3600, "n_samples": 1 << 26,
    "nb_max_frames": 1 << 20,
}  # fmt: skip


def validate(folder: Path) -> None:
    """Raise CheckpointRefused if one of the folder's JSON files, vocabularies excepted, breaks one of the rules."""
    for path in sorted(folder.glob("*.json")):
        if path.name not in _VOCABULARY:
            validate_object(path.name, read_json_object(path))


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in the file. Raises CheckpointRefused if it is too large, unreadable or something else."""
    refusal = CheckpointRefused(f"{named(path.name)} of the checkpoint cannot be read or is no JSON object")
    if fault := fault_of(path):
        raise CheckpointRefused(f"{named(path.name)} of the checkpoint cannot be read: it {fault}")
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise refusal
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except (OSError, ValueError, RecursionError) as error:
        raise refusal from error
    if not isinstance(content, dict):
        raise refusal
    return content


def read_optional(path: Path) -> dict[str, Any]:
    """The JSON object in the file, {} where there is none. Raises CheckpointRefused."""
    return read_json_object(path) if path.is_file() else {}


def validate_object(file: str, content: dict[str, Any]) -> None:
    """Raise CheckpointRefused if the content of the JSON file named `file` breaks one of the rules."""
    for key, value in items(content):
        if key in _FOREIGN_CODE_KEYS or (key in _ATTENTION_KEYS and not _is_known_attention(value)):
            raise CheckpointRefused(
                f"{named(file)} of the checkpoint holds {key!r}, which can run foreign code; remove it"
            )
        max_size = _MAX_SIZES.get(key)
        if max_size is not None and value is not None and not (type(value) is int and 1 <= value <= max_size):
            raise CheckpointRefused(
                f"{named(file)} of the checkpoint gives {key!r} a value that is no whole number from 1 to {max_size}"
            )


def _is_known_attention(value: Any) -> bool:
    """`value`: one name, or a dict with one for each part of the model."""
    return all(name in _KNOWN_ATTENTIONS for name in (value.values() if isinstance(value, dict) else [value]))


def items(content: Any) -> Iterator[tuple[str, Any]]:
    """The keys and values of all objects in the content, at any depth; not recursive, so no depth is too great."""
    pending = [content]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            yield from value.items()
            pending += value.values()
        elif isinstance(value, list):
            pending += value


def _refuse_constant(_constant: str) -> None:
    raise ValueError("NaN or Infinity")
