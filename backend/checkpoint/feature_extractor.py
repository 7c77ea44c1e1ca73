"""What a checkpoint says about its mel features, and the longest passage that it is made for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backend.checkpoint.validation import read_optional
from backend.options.load_options import MAX_CHUNK_S, MIN_CHUNK_S

_DEFAULT_CHUNK_S = 30.0  # `chunk_length` of the published checkpoints


def feature_extractor(folder: Path) -> dict[str, Any] | None:
    """Of preprocessor_config.json, or of processor_config.json, where transformers 5 nests it; None without one.

    Raises CheckpointRefused over a file that is no JSON object.
    """
    config: Any = read_optional(folder / "preprocessor_config.json")
    config = config or read_optional(folder / "processor_config.json").get("feature_extractor")
    return config if isinstance(config, dict) else None


def chunk_s(length: Any) -> float:
    """The longest passage by `chunk_length` of the mel features, in seconds, within the range of the option.

    Nothing else depends on `chunk_length`: features are computed for a whole clip, whatever its length.
    """
    if not isinstance(length, (int, float)) or isinstance(length, bool) or not length > 0:  # the last for NaN, too
        return _DEFAULT_CHUNK_S
    return float(min(max(length, MIN_CHUNK_S), MAX_CHUNK_S))
