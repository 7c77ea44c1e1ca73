"""Checkpoints of the published sizes that say a fixed number of words: `python -m devtools.bench.checkpoints 0.6b 40`.

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

import argparse
import itertools
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devtools.bench import vocabulary
from devtools.bench.shapes import SHAPES, Shape, config
from devtools.server_process import DEMO_MODEL, ROOT

if TYPE_CHECKING:
    import torch

FOLDER = ROOT / "build/bench/checkpoints"
_VERSION = {"recipe": 1}  # raised when checkpoints change
_MADE, _INDEX, _MAP = "made.json", "model.safetensors.index.json", "model-map.safetensors"
_EMBEDDING_STD = 0.1
_SUBLAYER_STD = 1e-3  # of what a sublayer adds, for an input of 1
_ON = 12.0  # a unit's gate for its own token; silu(12) = 12, and orthogonal embeddings give 0


def ensure(name: str, words: int, folder: Path = FOLDER) -> Path:
    """The checkpoint of the shape `name` with so many words (0: an aligner), made where it is missing.

    In a process of its own, so that torch and gigabytes do not stay in the one that measures.
    """
    wanted = folder / _name(SHAPES[name], words)
    if not _is_made(wanted):
        command = [sys.executable, "-m", "devtools.bench.checkpoints", name, str(words), "--folder", str(folder)]
        subprocess.run(command, check=True, cwd=ROOT)
    return wanted


def most_words(name: str) -> int:
    """The longest text of this shape: the MLP has a unit for each token, and some to spare."""
    return min(SHAPES[name].ffn - 64, len(vocabulary.WORDS))


def make(shape: Shape, words: int, folder: Path = FOLDER) -> Path:
    """Writes the checkpoint, and first what it shares with others of its shape, where they are missing."""
    wanted, shared = folder / _name(shape, words), folder / shape.name
    if not _is_made(shared):
        _write_shared(shape, shared)
    if not _is_made(wanted):
        _write_saying(shape, words, shared, wanted)
    return wanted


def _name(shape: Shape, words: int) -> str:
    return f"{shape.name}-{words}" if words else shape.name


def _is_made(folder: Path) -> bool:
    made = folder / _MADE
    return made.is_file() and json.loads(made.read_text()) == _VERSION


def _finish(draft: Path, folder: Path) -> None:
    """Puts a complete draft in its place: an interrupted run leaves nothing half made."""
    (draft / _MADE).write_text(json.dumps(_VERSION))
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)


def _draft(folder: Path) -> Path:
    draft = folder.with_name(f"{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    return draft


def _write_shared(shape: Shape, folder: Path) -> None:
    """Everything but the map: a shard for each part of the model, so that only one of them is in memory."""
    import torch
    from safetensors.torch import save_file

    draft, core = _draft(folder), vocabulary.make_core()
    vocabulary.save(core, draft)
    for name in ("chat_template.jinja", "preprocessor_config.json"):
        shutil.copy(DEMO_MODEL / name, draft)
    keys = config(shape, vocabulary.ids_by_name(core))
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
    _finish(draft, folder)


def _parameters(keys: dict[str, Any]) -> Iterable[tuple[str, tuple[int, ...]]]:
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


def _write_saying(shape: Shape, words: int, shared: Path, folder: Path) -> None:
    """Links to what is shared, the map for so many words, and the index over both."""
    from safetensors.torch import save_file

    draft = _draft(folder)
    for file in shared.iterdir():
        if file.name not in (_INDEX, _MADE):
            os.link(file, draft / file.name)
    index = json.loads((shared / _INDEX).read_text())["weight_map"]
    tensors = _map(shape, vocabulary.chain(vocabulary.make_core(), words), shared, index)
    save_file(tensors, draft / _MAP, metadata={"format": "pt"})
    _write_index(draft, index | dict.fromkeys(tensors, _MAP))
    _finish(draft, folder)


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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="devtools.bench.checkpoints", description="Makes a bench checkpoint.")
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("words", type=int, help="how many words it says; 0 for an aligner")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    wanted = parser.parse_args()
    print(f"making the checkpoint {_name(SHAPES[wanted.shape], wanted.words)}", file=sys.stderr)
    make(SHAPES[wanted.shape], wanted.words, wanted.folder)
