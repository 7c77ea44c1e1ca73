"""Checkpoints of the published sizes that say a fixed number of words.

Two systems can only be compared over equal work, and the length of an answer decides most of it. So a bench checkpoint
gives the same answer to any audio, in fp32, bf16 and int8 alike:

- Embeddings are random, so nearly orthogonal, and the head is the embedding.
- Every sublayer of the text model computes in full and adds next to nothing: the residual stream stays the embedding.
- The last layer's MLP maps each token of the text to the next: unit i is switched on by the embedding of token i (gate
  and up) and adds the difference between the next embedding and it (down).

The encoder is random. An aligner has no text, and its times mean nothing. The MLP is a shard of its own: checkpoints of
one shape share all other files by hard links.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import multiprocessing
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devtools.bench import vocabulary
from devtools.bench.measurement import Failed, say
from devtools.server_process import DEMO_ALIGNER, DEMO_MODEL, ROOT

if TYPE_CHECKING:
    import torch

FOLDER = ROOT / "build/bench/checkpoints"  # to be removed when what is written here changes
_INDEX, _MAP = "model.safetensors.index.json", "model-map.safetensors"
_EMBEDDING_STD = 0.1
_SUBLAYER_STD = 1e-3  # of what a sublayer adds, for an input of 1
_ON = 12.0  # a unit's gate for its own token; silu(12) = 12, and orthogonal embeddings give 0
VOCABULARY = 151_936  # rows of the embedding; the tokenizer has fewer tokens, as the real one has


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

    In a process of its own, so that torch and gigabytes do not stay in the one that measures. Raises Failed.
    """
    wanted = folder / _name(SHAPES[name], words)
    if not wanted.exists():
        say(f"making the checkpoint {wanted.name}")
        process = multiprocessing.get_context("spawn").Process(target=make, args=(SHAPES[name], words, folder))
        process.start()
        process.join()
        if process.exitcode:
            raise Failed(f"the checkpoint {wanted.name} could not be made")
    return wanted


def most_words(name: str) -> int:
    """The longest text of this shape: the MLP has a unit for each token, and some to spare."""
    return min(SHAPES[name].ffn - 64, len(vocabulary.WORDS))


def make(shape: Shape, words: int, folder: Path = FOLDER) -> Path:
    """Writes the checkpoint, and first what it shares with others of its shape, where they are missing."""
    wanted, shared = folder / _name(shape, words), folder / shape.name
    if not shared.exists():
        with _draft(shared) as draft:
            _write_shared(shape, draft)
    if not wanted.exists():
        with _draft(wanted) as draft:
            _write_saying(shape, words, shared, draft)
    return wanted


def _name(shape: Shape, words: int) -> str:
    return f"{shape.name}-{words}" if words else shape.name


@contextlib.contextmanager
def _draft(folder: Path) -> Iterator[Path]:
    """A folder to write to, which takes its place when it is complete: an interrupted run leaves nothing half made."""
    draft = folder.with_name(f"{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    yield draft
    draft.rename(folder)


def _write_shared(shape: Shape, draft: Path) -> None:
    """Everything but the map: a shard for each part of the model, so that only one of them is in memory."""
    import torch
    from safetensors.torch import save_file

    from devtools.demo_models.checkpoint import as_qwen

    core = vocabulary.make_core()
    as_qwen(core).save_pretrained(draft)
    for name in ("chat_template.jinja", "preprocessor_config.json"):
        shutil.copy(DEMO_MODEL / name, draft)
    names = (*vocabulary.SPECIAL, *vocabulary.NOT_SPECIAL, "user")
    keys = config(shape, {token: core.token_to_id(token) for token in names})
    (draft / "config.json").write_text(json.dumps(keys, indent=2))
    ends = [vocabulary.SPECIAL[token] for token in ("<|im_end|>", "<|endoftext|>")]
    (draft / "generation_config.json").write_text(json.dumps({"eos_token_id": ends, "pad_token_id": ends[1]}))
    generator = torch.Generator().manual_seed(20_26)
    index: dict[str, str] = {}
    for part, group in itertools.groupby(_parameters(keys), key=lambda parameter: _part(parameter[0])):
        file = f"model-{part}.safetensors"
        tensors = {name: _values(name, size, generator) for name, size in group if not _is_map(shape, name)}
        save_file(tensors, draft / file, metadata={"format": "pt"})
        index |= dict.fromkeys(tensors, file)
    _write_index(draft, index)


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


def _parameters(keys: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of a checkpoint's tensors, by the package's own classes."""
    import torch
    from qwen_asr.core.transformers_backend import Qwen3ASRConfig, Qwen3ASRForConditionalGeneration

    built, kind = Qwen3ASRConfig(**keys), keys["thinker_config"]["model_type"]
    built.thinker_config.model_type = kind  # an instance attribute, by which the package recognises an aligner
    with torch.device("meta"):
        model = Qwen3ASRForConditionalGeneration(built)
    for name, tensor in model.named_parameters(remove_duplicate=False):
        if "aligner" in kind or name != "thinker.lm_head.weight":  # which is tied to the embedding
            yield name, tuple(tensor.shape)


def _part(name: str) -> str:
    """The shard of a parameter: the encoder's, the embedding's, the layers', or an aligner's head's."""
    return "embedding" if "embed_tokens" in name else name.split(".")[1]


def _values(name: str, size: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Normally distributed; a layer's output has the size of its input, but for what the module's docstring says."""
    import torch

    if len(size) == 1:
        return torch.full(size, 1.0 if name.endswith("weight") else 0.0, dtype=torch.bfloat16)  # norms, biases
    deviation = _EMBEDDING_STD if "embed_tokens" in name else math.prod(size[1:]) ** -0.5
    if ".model.layers." in name and ("o_proj" in name or "down_proj" in name):
        deviation *= _SUBLAYER_STD
    return torch.empty(size, dtype=torch.bfloat16).normal_(0.0, deviation, generator=generator)


def _is_map(shape: Shape, name: str) -> bool:
    return not shape.is_aligner and f".model.layers.{shape.layers - 1}.mlp." in name


def _write_saying(shape: Shape, words: int, shared: Path, draft: Path) -> None:
    """Links to what is shared, the map for so many words, and the index over both."""
    from safetensors.torch import save_file

    for file in shared.iterdir():
        if file.name != _INDEX:
            os.link(file, draft / file.name)
    index = json.loads((shared / _INDEX).read_text())["weight_map"]
    tensors = _map(shape, vocabulary.chain(vocabulary.make_core(), words), shared, index)
    save_file(tensors, draft / _MAP, metadata={"format": "pt"})
    _write_index(draft, index | dict.fromkeys(tensors, _MAP))


def _map(shape: Shape, ids: Sequence[int], shared: Path, index: dict[str, str]) -> dict[str, torch.Tensor]:
    """The last layer's MLP. Its input is normalised: sqrt(hidden) times the direction of the token's embedding."""
    import torch
    from safetensors import safe_open

    name = "thinker.model.embed_tokens.weight"
    with safe_open(shared / index[name], "pt") as shard:
        embedding = torch.stack([shard.get_slice(name)[i] for i in ids]).float()
    units = len(ids) - 1
    if units > shape.ffn:
        raise ValueError(f"the shape {shape.name} holds {shape.ffn} tokens, not {units}")
    direction = torch.nn.functional.normalize(embedding[:-1], dim=1) * shape.hidden**-0.5
    generator = torch.Generator().manual_seed(units)
    mlp = f"thinker.model.layers.{shape.layers - 1}.mlp"
    gate, up, down = (f"{mlp}.{part}_proj.weight" for part in ("gate", "up", "down"))
    sizes = {gate: (shape.ffn, shape.hidden), up: (shape.ffn, shape.hidden), down: (shape.hidden, shape.ffn)}
    tensors = {name: _values(name, size, generator) for name, size in sizes.items()}
    tensors[gate][:units] = (direction * _ON).bfloat16()
    tensors[up][:units] = direction.bfloat16()
    tensors[down][:, :units] = ((embedding[1:] - embedding[:-1]).T / _ON).bfloat16()
    return tensors


def _write_index(folder: Path, weight_map: dict[str, str]) -> None:
    total = sum((folder / file).stat().st_size for file in set(weight_map.values()))
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / _INDEX).write_text(json.dumps(index, indent=1))
