"""The sizes of the published checkpoints, and the words that a bench checkpoint of such a size says.

The sizes are those of Qwen3-ASR 0.6B and 1.7B and of Qwen3-ForcedAligner-0.6B. What is the same in every checkpoint is
read from the demo's config.json.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devtools.server_process import DEMO_ALIGNER, DEMO_MODEL, ROOT

FOLDER = ROOT / "build/bench/checkpoints"  # to be removed when checkpoints.py or this file change
CHUNK_S = 30  # seconds: `chunk_length` of the published checkpoints
VOCABULARY = 151_936  # rows of the embedding; the tokenizer has fewer tokens, as the real one has
_SYLLABLES = ["".join(pair) for pair in itertools.product("bdfghjklmnprstvz", "aeio")]
# 4096 words of one token each, as most words of a real transcript are
WORDS = tuple(f" {first}{second}" for first, second in itertools.product(_SYLLABLES, repeat=2))


@dataclass(frozen=True)
class Shape:
    """`classes`: of an aligner's head; 0 for a recogniser, whose head is its embedding."""

    name: str
    encoder_layers: int
    encoder_width: int
    encoder_heads: int
    encoder_ffn: int
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    classes: int = 0
    convolution: int = 480  # channels of the encoder's convolutions

    def file_name(self, words: int) -> str:
        return f"{self.name}-{words}" if words else self.name

    @property
    def is_aligner(self) -> bool:
        return self.classes > 0

    @property
    def decoded_parameters(self) -> int:
        """Weights that a decode step reads: the linear layers of the text model, and the head."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.ffn) + self.hidden * VOCABULARY


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("0.6b", 18, 896, 14, 3584, 28, 1024, 16, 8, 128, 3072),
        Shape("1.7b", 24, 1024, 16, 4096, 28, 2048, 16, 8, 128, 6144),
        Shape("aligner", 24, 1024, 16, 4096, 28, 1024, 16, 8, 128, 3072, classes=5000),
        # for tests: everything small but the vocabulary, whose last ids the package expects
        Shape("tiny", 1, 64, 4, 128, 2, 128, 4, 2, 32, 256, convolution=16),
        Shape("tiny-aligner", 1, 64, 4, 128, 2, 128, 4, 2, 32, 256, classes=300, convolution=16),
    )
}


def ensure(name: str, words: int, folder: Path = FOLDER) -> Path:
    """The checkpoint of the shape `name` with so many words (0: an aligner), made where it is missing.

    In a process of its own, so that torch and gigabytes do not stay in the one that measures.
    """
    wanted = folder / SHAPES[name].file_name(words)
    if not wanted.exists():
        print(f"making the checkpoint {wanted.name}", file=sys.stderr)
        command = [sys.executable, "-m", "devtools.bench.checkpoints", name, str(words), str(folder)]
        subprocess.run(command, check=True, cwd=ROOT)
    return wanted


def most_words(name: str) -> int:
    """The longest text of this shape: the MLP has a unit for each token, and some to spare."""
    return min(SHAPES[name].ffn - 64, len(WORDS))


def text_of(words: int) -> str:
    """The transcript of a checkpoint with so many words."""
    return "".join(WORDS[:words]).strip()


def config(shape: Shape, ids: dict[str, int]) -> dict[str, Any]:
    """config.json of a checkpoint of `shape` whose special tokens have these `ids`."""
    demo = DEMO_ALIGNER if shape.is_aligner else DEMO_MODEL
    keys: dict[str, Any] = json.loads((demo / "config.json").read_text())
    thinker, half = keys["thinker_config"], shape.head_dim // 2
    side = half * 20 // 64  # the real heads have 64 frequencies: 24, 20 and 20
    rope = {"rope_type": "default", "interleaved": True, "mrope_section": [half - 2 * side, side, side]}
    audio, text = thinker["audio_config"], thinker["text_config"]
    audio |= {"encoder_layers": shape.encoder_layers, "num_hidden_layers": shape.encoder_layers}
    audio |= {"d_model": shape.encoder_width, "encoder_attention_heads": shape.encoder_heads}
    audio |= {"encoder_ffn_dim": shape.encoder_ffn, "downsample_hidden_size": shape.convolution}
    audio["output_dim"] = shape.hidden
    text |= {"vocab_size": VOCABULARY, "hidden_size": shape.hidden, "intermediate_size": shape.ffn}
    text |= {"num_hidden_layers": shape.layers, "num_attention_heads": shape.heads, "head_dim": shape.head_dim}
    text |= {"num_key_value_heads": shape.kv_heads, "max_position_embeddings": 65_536, "rope_scaling": rope}
    thinker |= {"audio_token_id": ids["<|audio_pad|>"], "pad_token_id": ids["<|endoftext|>"]}
    thinker |= {"audio_start_token_id": ids["<|audio_start|>"], "audio_end_token_id": ids["<|audio_end|>"]}
    thinker |= {"user_token_id": ids["user"], "dtype": "bfloat16"}
    keys["dtype"] = "bfloat16"
    if shape.is_aligner:
        thinker["classify_num"] = shape.classes
        keys |= {"timestamp_token_id": ids["<timestamp>"], "timestamp_segment_time": 80}
    return keys
