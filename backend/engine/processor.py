"""The processor of a checkpoint: its mel features and its tokenizer, from its small files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from backend.chat_format.tokenizer import make_tokenizer
from backend.checkpoint.feature_extractor import feature_extractor
from backend.engine.mel_features import MelFeatures
from backend.errors import CheckpointRefused


@dataclass(frozen=True)
class Processor:
    """`tokenizer`: without padding and truncation, so that threads can share it."""

    features: MelFeatures
    tokenizer: Tokenizer


def make_processor(folder: Path, mels: int) -> Processor:
    """For the checkpoint in `folder`, whose encoder takes so many mel bins.

    Raises CheckpointRefused, which names the files.
    """
    tokenizer = make_tokenizer(folder)
    config = feature_extractor(folder)
    if config is None:
        raise CheckpointRefused(
            "the checkpoint could not be loaded: it has neither preprocessor_config.json "
            "nor a feature extractor in processor_config.json"
        )
    return Processor(MelFeatures(config, mels), tokenizer)
