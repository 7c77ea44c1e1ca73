"""Checkpoints of the published sizes that say a fixed number of words and end.

`python -m devtools.bench.checkpoints 0.6b 40` makes one.

Two systems can only be compared over equal work, and how long an answer is decides most of the work. So a bench
checkpoint knows one text by heart, whatever it hears, and says it in fp32, bf16 and int8 alike:

- Every sublayer of the text model computes in full and adds next to nothing, so that the residual stream at a position
  stays the embedding of the token there.
- The last layer's MLP is a map from each token of the text to its successor: unit i is switched on by the embedding of
  the i-th token (gate and up), and adds the difference between the next token's embedding and it (down).
- Embeddings are random and so almost at right angles to each other, and the head is the embedding, so that the next
  token wins by far.

The encoder is random. An aligner's checkpoint has no text; its times mean nothing, and cost what they cost.

The map is a shard of its own: checkpoints of one size that say texts of different lengths share all others, by links.
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
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devtools.bench import vocabulary
from devtools.bench.shapes import DEMO_MODEL, ROOT, SHAPES, Shape, config

if TYPE_CHECKING:
    import torch

FOLDER = ROOT / "build/bench/checkpoints"
_RECIPE = 1  # raise it when a checkpoint that was made before would not be made so again
_MADE = "made.json"
_INDEX = "model.safetensors.index.json"
_MAP = "model-map.safetensors"
_COPIED = ("chat_template.jinja", "preprocessor_config.json")

_EMBEDDING = 0.1  # standard deviation
_WHISPER = 1e-3  # of what a sublayer adds to the residual stream, where its input has 1
_ON = 12.0  # what a unit of the map is switched on with; silu(12) = 12, and what is at right angles to it gives 0


def ensure(name: str, words: int, folder: Path = FOLDER) -> Path:
    """The folder of the checkpoint of the shape `name` that says so many words (0: an aligner); made when missing.

    It is made in a process of its own, so that torch and gigabytes do not stay in the one that measures.
    """
    wanted = folder / _name(SHAPES[name], words)
    if not _is_made(wanted):
        command = [sys.executable, "-m", "devtools.bench.checkpoints", name, str(words), "--folder", str(folder)]
        subprocess.run(command, check=True, cwd=ROOT)
    return wanted


def most_words(name: str) -> int:
    """The longest text that the map of this shape can hold: a unit for each token, and some to spare."""
    return min(SHAPES[name].ffn - 64, len(vocabulary.WORDS))


def make(shape: Shape, words: int, folder: Path = FOLDER) -> Path:
    """Write the checkpoint, and first what it shares with others of its shape. Quick when it is there."""
    wanted, shared = folder / _name(shape, words), folder / shape.name
    if not _is_made(shared):
        _make_shared(shape, shared)
    if not _is_made(wanted):
        _make_saying(shape, words, shared, wanted)
    return wanted


def _name(shape: Shape, words: int) -> str:
    return f"{shape.name}-{words}" if words else shape.name


def _is_made(folder: Path) -> bool:
    made = folder / _MADE
    return made.is_file() and json.loads(made.read_text()) == {"recipe": _RECIPE}


def _finish(draft: Path, folder: Path) -> None:
    """Mark the draft as whole and put it in its place; whoever is interrupted before leaves nothing half made."""
    (draft / _MADE).write_text(json.dumps({"recipe": _RECIPE}))
    if folder.exists():
        shutil.rmtree(folder)
    draft.rename(folder)


def _draft(folder: Path) -> Path:
    draft = folder.with_name(f"{folder.name}.draft")
    if draft.exists():
        shutil.rmtree(draft)
    draft.mkdir(parents=True)
    return draft


def _make_shared(shape: Shape, folder: Path) -> None:
    """All files but the map and, for a recogniser, the index."""
    draft = _draft(folder)
    core = vocabulary.make_core()
    vocabulary.save(core, draft)
    for name in _COPIED:
        shutil.copy(DEMO_MODEL / name, draft)
    keys = config(shape, vocabulary.ids_by_name(core))
    (draft / "config.json").write_text(json.dumps(keys, indent=2))
    ends = [vocabulary.SPECIAL[token] for token in ("<|im_end|>", "<|endoftext|>")]
    (draft / "generation_config.json").write_text(json.dumps({"eos_token_id": ends, "pad_token_id": ends[1]}))
    _write_weights(shape, keys, draft)
    _finish(draft, folder)


def _write_weights(shape: Shape, keys: dict[str, Any], folder: Path) -> None:
    """Random tensors, a shard for each part of the model, so that never more than the largest of them is in memory."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(20_26)
    index: dict[str, str] = {}
    for part, group in itertools.groupby(_parameters(keys), key=_part):
        file = f"model-{part}.safetensors"
        tensors = {name: _values(name, size, generator) for name, size in group if not _is_map(shape, name)}
        save_file(tensors, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(tensors, file)
    _write_index(folder, index)


def _parameters(keys: dict[str, Any]) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes of what such a checkpoint holds, by the package's own classes."""
    import torch
    from qwen_asr.core.transformers_backend import Qwen3ASRConfig, Qwen3ASRForConditionalGeneration

    built = Qwen3ASRConfig(**keys)
    kind = keys["thinker_config"]["model_type"]
    built.thinker_config.model_type = kind  # an instance attribute: the package tells an aligner by it
    with torch.device("meta"):
        model = Qwen3ASRForConditionalGeneration(built)
    tied = "aligner" not in kind
    return [
        (name, tuple(tensor.shape))
        for name, tensor in model.named_parameters(remove_duplicate=False)
        if not (tied and name == "thinker.lm_head.weight")
    ]


def _part(parameter: tuple[str, tuple[int, ...]]) -> str:
    """The shard a parameter belongs to: the encoder's, the embedding's, the layers', or an aligner's head's."""
    name = parameter[0]
    return "embedding" if "embed_tokens" in name else name.split(".")[1]


def _values(name: str, size: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Normally distributed so that a layer gives what it is given in size, or as the module's docstring says."""
    import torch

    if len(size) == 1:
        return torch.full(size, 1.0 if name.endswith("weight") else 0.0, dtype=torch.bfloat16)  # norms, biases
    deviation = _EMBEDDING if "embed_tokens" in name else math.prod(size[1:]) ** -0.5
    if ".model.layers." in name and ("o_proj" in name or "down_proj" in name):
        deviation *= _WHISPER
    return torch.empty(size, dtype=torch.bfloat16).normal_(0.0, deviation, generator=generator)


def _is_map(shape: Shape, name: str) -> bool:
    return not shape.is_aligner and f".model.layers.{shape.layers - 1}.mlp." in name


def _make_saying(shape: Shape, words: int, shared: Path, folder: Path) -> None:
    """A checkpoint that says so many words: links to what is shared, its own map, and the index over both."""
    from safetensors.torch import save_file

    draft = _draft(folder)
    for file in shared.iterdir():
        if file.name not in (_INDEX, _MADE):
            os.link(file, draft / file.name)
    tensors = _map(shape, vocabulary.chain(vocabulary.make_core(), words), shared)
    save_file(tensors, draft / _MAP, metadata={"format": "pt"})
    index = json.loads((shared / _INDEX).read_text())["weight_map"]
    _write_index(draft, index | dict.fromkeys(tensors, _MAP))
    _finish(draft, folder)


def _map(shape: Shape, ids: Sequence[int], shared: Path) -> dict[str, torch.Tensor]:
    """The last layer's MLP. Its input is normalised: sqrt(hidden) times the direction of the token's embedding."""
    import torch
    from safetensors import safe_open

    name = "thinker.model.embed_tokens.weight"
    file = json.loads((shared / _INDEX).read_text())["weight_map"][name]
    with safe_open(shared / file, "pt") as shard:
        embedding = torch.stack([shard.get_slice(name)[i] for i in ids]).float()
    units = len(ids) - 1
    if units > shape.ffn:
        raise ValueError(f"the shape {shape.name} holds {shape.ffn} tokens, not {units}")
    direction = torch.nn.functional.normalize(embedding[:-1], dim=1) * shape.hidden**-0.5
    prefix = f"thinker.model.layers.{shape.layers - 1}.mlp."
    generator = torch.Generator().manual_seed(units)
    names = {part: f"{prefix}{part}_proj.weight" for part in ("gate", "up", "down")}
    sizes = {"gate": (shape.ffn, shape.hidden), "up": (shape.ffn, shape.hidden), "down": (shape.hidden, shape.ffn)}
    tensors = {part: _values(names[part], sizes[part], generator) for part in names}
    tensors["gate"][:units] = (direction * _ON).bfloat16()
    tensors["up"][:units] = direction.bfloat16()
    tensors["down"][:, :units] = ((embedding[1:] - embedding[:-1]).T / _ON).bfloat16()
    return {names[part]: tensor for part, tensor in tensors.items()}


def _write_index(folder: Path, weight_map: dict[str, str]) -> None:
    total = sum((folder / file).stat().st_size for file in set(weight_map.values()))
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / _INDEX).write_text(json.dumps(index, indent=1))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="devtools.bench.checkpoints", description="Makes a bench checkpoint.")
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("words", type=int, help="how many words it says; 0 for an aligner")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    wanted = parser.parse_args(argv)
    print(f"making the checkpoint {_name(SHAPES[wanted.shape], wanted.words)}", file=sys.stderr)
    make(SHAPES[wanted.shape], wanted.words, wanted.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
