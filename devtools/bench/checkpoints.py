"""Checkpoints of the published sizes that say a fixed number of words.

`python -m devtools.bench.checkpoints SHAPE WORDS FOLDER` makes one.

Two systems can only be compared over equal work, and the length of an answer decides most of it. So a bench checkpoint
gives the same answer to any audio, in fp32, bf16 and int8 alike:

- Embeddings are random, so nearly orthogonal, and the head is the embedding.
- Every sublayer of the text model computes in full and adds next to nothing: the residual stream stays the embedding.
- The last layer's MLP maps each token of the text to the next: unit i is switched on by the embedding of token i (gate
  and up) and adds the difference between the next embedding and it (down).

The encoder is random. An aligner has no text, and its times mean nothing. The tokenizer's special tokens have the
released ids: two of them, which end an answer, stand in the package's code. The MLP is a shard of its own: checkpoints
of one shape share all other files by hard links.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from qwen_asr.core.transformers_backend import Qwen3ASRConfig, Qwen3ASRForConditionalGeneration
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from devtools.bench.shapes import CHUNK_S, SHAPES, WORDS, Shape, config
from devtools.demo_models.checkpoint import as_qwen
from devtools.server_process import DEMO_MODEL

SPECIAL = {
    "<|endoftext|>": 151_643,
    "<|im_start|>": 151_644,
    "<|im_end|>": 151_645,
    "<|audio_start|>": 151_669,
    "<|audio_end|>": 151_670,
    "<|audio_pad|>": 151_676,
}
NOT_SPECIAL = {"<asr_text>": 151_704, "<timestamp>": 151_705}  # decoding must keep <asr_text>: it ends the language
_PROTOCOL = ("system", "user", "assistant", "language", " None", " English", " Chinese")
_INDEX, _MAP = "model.safetensors.index.json", "model-map.safetensors"
_EMBEDDING_STD = 0.1
_SUBLAYER_STD = 1e-3  # of what a sublayer adds, for an input of 1
_ON = 12.0  # a unit's gate for its own token; silu(12) = 12, and orthogonal embeddings give 0


def make_core() -> Tokenizer:
    """Bytes, the words, and meaningless entries up to the special ids."""
    demo, learned = Tokenizer.from_file(str(DEMO_MODEL / "tokenizer.json")), Tokenizer(models.BPE())
    learned.pre_tokenizer = demo.pre_tokenizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=16_384, initial_alphabet=alphabet, show_progress=False)
    learned.train_from_iterator([*_PROTOCOL, *WORDS], trainer)
    model = json.loads(learned.to_str())["model"]
    vocabulary: dict[str, int] = dict(model["vocab"])
    named = {token_id: token for token, token_id in (SPECIAL | NOT_SPECIAL).items()}
    for token_id in range(len(vocabulary), max(named) + 1):
        vocabulary[named.get(token_id, f"<|nothing-{token_id}|>")] = token_id
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[tuple(merge) for merge in model["merges"]]))
    core.pre_tokenizer, core.decoder = demo.pre_tokenizer, decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    core.add_tokens([AddedToken(token, special=False, normalized=False) for token in NOT_SPECIAL])
    return core


def chain(core: Tokenizer, words: int) -> list[int]:
    """Token ids from the end of the prompt to the end of the answer: newline, language, `words` words, end."""
    if not 0 < words <= len(WORDS):
        raise ValueError(f"a chain has 1 to {len(WORDS)} words, not {words}")
    # a byte-level vocabulary writes newline and space as these two
    said = ["\u010a", "language", "\u0120English", "<asr_text>"]
    said += [word.replace(" ", "\u0120") for word in WORDS[:words]]
    ids = [core.token_to_id(token) for token in (*said, "<|im_end|>")]
    assert None not in ids
    return ids


def make(shape: Shape, words: int, folder: Path) -> Path:
    """Writes the checkpoint, and first what it shares with others of its shape, where they are missing."""
    wanted, shared = folder / shape.file_name(words), folder / shape.name
    if not shared.exists():
        with _draft(shared) as draft:
            _write_shared(shape, draft)
    if not wanted.exists():
        with _draft(wanted) as draft:
            _write_saying(shape, words, shared, draft)
    return wanted


@contextlib.contextmanager
def _draft(folder: Path) -> Iterator[Path]:
    """A folder to write to, which takes its place when it is complete: an interrupted run leaves nothing half made."""
    draft = folder.with_name(f"{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    yield draft
    draft.rename(folder)


def _write_mel(draft: Path) -> None:
    """The demo's feature extractor, for passages as long as the published checkpoints have them."""
    keys: dict[str, Any] = json.loads((DEMO_MODEL / "preprocessor_config.json").read_text())
    keys["chunk_length"] = CHUNK_S
    keys["n_samples"] = CHUNK_S * keys["sampling_rate"]
    keys["nb_max_frames"] = keys["n_samples"] // keys["hop_length"]
    (draft / "preprocessor_config.json").write_text(json.dumps(keys, indent=2))


def _write_shared(shape: Shape, draft: Path) -> None:
    """Everything but the map: a shard for each part of the model, so that only one of them is in memory."""
    core = make_core()
    as_qwen(core).save_pretrained(draft)
    shutil.copy(DEMO_MODEL / "chat_template.jinja", draft)
    _write_mel(draft)
    names = (*SPECIAL, *NOT_SPECIAL, "user")
    keys = config(shape, {token: core.token_to_id(token) for token in names})
    (draft / "config.json").write_text(json.dumps(keys, indent=2))
    ends = [SPECIAL[token] for token in ("<|im_end|>", "<|endoftext|>")]
    (draft / "generation_config.json").write_text(json.dumps({"eos_token_id": ends, "pad_token_id": ends[1]}))
    generator = torch.Generator().manual_seed(20_26)
    index: dict[str, str] = {}
    for part, group in itertools.groupby(_parameters(keys), key=lambda parameter: _part(parameter[0])):
        file = f"model-{part}.safetensors"
        tensors = {name: _values(name, size, generator) for name, size in group if not _is_map(shape, name)}
        save_file(tensors, draft / file, metadata={"format": "pt"})
        index |= dict.fromkeys(tensors, file)
    _write_index(draft, index)


def _parameters(keys: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of a checkpoint's tensors, by the package's own classes."""
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
    for file in shared.iterdir():
        if file.name != _INDEX:
            os.link(file, draft / file.name)
    index = json.loads((shared / _INDEX).read_text())["weight_map"]
    tensors = _map(shape, chain(make_core(), words), shared, index)
    save_file(tensors, draft / _MAP, metadata={"format": "pt"})
    _write_index(draft, index | dict.fromkeys(tensors, _MAP))


def _map(shape: Shape, ids: Sequence[int], shared: Path, index: dict[str, str]) -> dict[str, torch.Tensor]:
    """The last layer's MLP. Its input is normalised: sqrt(hidden) times the direction of the token's embedding."""
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
    make(SHAPES[sys.argv[1]], int(sys.argv[2]), Path(sys.argv[3]))
