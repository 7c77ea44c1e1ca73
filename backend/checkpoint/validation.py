"""What a checkpoint's small files may say, looked at before transformers reads them.

Rules: nothing that could run foreign code, anywhere in them; no size that is none. transformers would believe both: it
fetches kernels that a config names as its attention (CVE-2026-4372), and allocates what a config promises.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from backend.errors import CheckpointRefused, named

_VOCABULARY = {"tokenizer.json", "vocab.json", "model.safetensors.index.json"}  # their keys are words
_LARGEST_FILE = 1 << 24  # bytes
_RUNS_CODE = {"auto_map", "_attn_implementation_internal", "custom_pipelines"}
_NAMES_ATTENTION = {"_attn_implementation", "attn_implementation"}
_ATTENTIONS = (None, "eager", "sdpa", "flash_attention_2")
# The most of each that is plausible: several times what the 1.7B has.
_SIZES = {
    "hidden_size": 1 << 14, "intermediate_size": 1 << 17, "num_hidden_layers": 256, "num_attention_heads": 512,
    "num_key_value_heads": 512, "head_dim": 1024, "vocab_size": 1 << 21, "max_position_embeddings": 1 << 23,
    "classify_num": 1 << 17,
    "d_model": 1 << 14, "encoder_layers": 256, "encoder_attention_heads": 512, "encoder_ffn_dim": 1 << 17,
    "num_mel_bins": 512, "max_source_positions": 1 << 14, "output_dim": 1 << 14, "downsample_hidden_size": 1 << 14,
    "n_window": 1 << 14, "n_window_infer": 1 << 16, "conv_chunksize": 1 << 16,
    "feature_size": 512, "n_fft": 1 << 14, "hop_length": 1 << 14, "chunk_length": 3600, "n_samples": 1 << 26,
    "nb_max_frames": 1 << 20,
}  # fmt: skip


def validate(folder: Path) -> None:
    """Raises CheckpointRefused if one of the folder's small JSON files says what it must not."""
    for path in sorted(folder.glob("*.json")):
        if path.name not in _VOCABULARY:
            vet_object(path.name, read_object(path))


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in the file. Raises CheckpointRefused."""
    refusal = CheckpointRefused(f"{named(path.name)} of the checkpoint cannot be read or is no JSON object")
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise refusal
        found = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except (OSError, ValueError, RecursionError) as error:
        raise refusal from error
    if not isinstance(found, dict):
        raise refusal
    return found


def vet_object(file: str, content: dict[str, Any]) -> None:
    for key, value in _pairs(content):
        if key in _RUNS_CODE or (key in _NAMES_ATTENTION and not _is_known(value)):
            raise CheckpointRefused(
                f"{named(file)} of the checkpoint holds {key!r}, which can run foreign code; remove it"
            )
        most = _SIZES.get(key)
        if most is not None and value is not None and not (type(value) is int and 1 <= value <= most):
            raise CheckpointRefused(
                f"{named(file)} of the checkpoint gives {key!r} a value that is no whole number from 1 to {most}"
            )


def _is_known(attention: Any) -> bool:
    """One name, or one for each part of the model."""
    return all(name in _ATTENTIONS for name in (attention.values() if isinstance(attention, dict) else [attention]))


def _pairs(found: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, however deep."""
    waiting = [found]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield from part.items()
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part


def _no_number(_constant: str) -> None:
    raise ValueError("NaN or Infinity")
