"""Whether a checkpoint fits into memory: judged by the headers of its files, before a weight is read.

Rules: only a load that cannot succeed is refused, with both numbers. What the backend adapts to is a warning: a batch
that does not fit runs in smaller ones, and without room for the aligner a transcript has coarse times.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from backend.errors import TooLittleMemory

_log = logging.getLogger(__name__)

# Intermediate results and what the allocator loses, as a share of the weights: an estimate, not measured on a GPU. On
# CPUs weights are read straight to their place, and what else is needed can be swapped.
WORK_SHARE = 0.15
# Of the free memory, from which a load that fits is called close: another process's few hundred megabytes end it.
CLOSE_SHARE = 0.9
# Positions of a row's keys and values: 13 audio tokens a second and 10 of text, of which English has 4 and most
# languages less than 10; the chat template, the language tag and a few hot words. Memory is reserved in steps.
_AUDIO_POSITIONS_PER_S, _TEXT_POSITIONS_PER_S, _PROMPT_POSITIONS, _POSITIONS_STEP = 13, 10, 64, 256
_MAX_HEADER_BYTES = 100_000_000  # as the safetensors library has it
_INT8_BYTES_PER_OUTPUT = 8  # a scale, and on CPUs a sum

_ROW_SIZES = ("num_hidden_layers", "num_key_value_heads", "head_dim")  # of the text model's config
_DECODER_LINEAR = re.compile(r"layers\.\d+\.(self_attn|mlp)\.\w+_proj\.weight$")  # of the text model, in any layout
_EMBEDDING = re.compile(r"embed_tokens\.weight$")
_HEAD = re.compile(r"lm_head\.weight$")

Verdict = Literal["fits", "close", "without aligner", "too large"]


@dataclass(frozen=True)
class Need:
    """Bytes that a model needs. `weights`, and those of an `aligner` that may join it; `row`: keys and values of one
    row of the longest passage, of which there are `rows` in a batch.
    """

    weights: float
    aligner: float = 0
    row: float = 0
    rows: int = 1

    @property
    def least(self) -> float:
        """Of the model and one row."""
        return self.weights * (1 + WORK_SHARE) + self.row

    @property
    def alone(self) -> float:
        """Of the model and a whole batch."""
        return self.weights * (1 + WORK_SHARE) + self.row * self.rows

    @property
    def whole(self) -> float:
        """Of all, the aligner included."""
        return self.alone + self.aligner


@dataclass(frozen=True)
class Room:
    """Bytes of a device. `free`: what is good to use. `most`: beyond it nothing can be allocated.

    On GPUs the two are the same. On CPUs `most` counts the swap space, and weights alone are held against it.
    """

    free: float
    most: float
    is_cpu: bool = False


def verdict(need: Need, room: Room) -> Verdict:
    """How the model fits: all of it; so that little is left; without its aligner; or not at all."""
    if (need.weights if room.is_cpu else need.least) > room.most:
        return "too large"
    if need.aligner and need.least + need.aligner > room.free:
        return "without aligner"
    return "close" if need.whole > room.free * CLOSE_SHARE else "fits"


def check(need: Need, room: Room) -> None:
    """Raise TooLittleMemory where the model cannot be loaded; log a warning where it hardly can."""
    found = verdict(need, room)
    if found == "too large":
        raise TooLittleMemory(need.weights if room.is_cpu else need.least, room.most)
    if found == "without aligner":
        _log.warning(
            "the forced aligner will hardly fit beside the recogniser: together they need %.1f GB, %.1f GB are free; "
            "requests for times may get estimates; use a smaller model or Quantization int8",
            (need.least + need.aligner) / 1e9, room.free / 1e9,
        )  # fmt: skip
    elif found == "close":
        _log.warning(
            "memory is close: the model with its largest batch needs %.1f GB, %.1f GB are free; "
            "batches that do not fit run in smaller ones; lower batch_max_size, or use Quantization int8",
            need.whole / 1e9, room.free / 1e9,
        )  # fmt: skip


def weight_bytes(folder: Path, itemsize: int, int8: bool = False) -> float:
    """Bytes of the checkpoint's weights in memory, with `itemsize` bytes for each number.

    `int8`: the text model's linear layers and its head in eight bits; the embedding stays beside the head. A head that
    the embedding stands for is counted once. 0 where no header can be read: the load itself will say why.
    """
    tensors = dict(_tensors(folder))
    embeddings = [shape for name, shape in tensors.items() if _EMBEDDING.search(name)]
    total = 0.0
    for name, shape in tensors.items():
        if _HEAD.search(name) and shape in embeddings:
            continue
        is_quantized = int8 and _DECODER_LINEAR.search(name) is not None and "audio_tower" not in name
        total += _int8_bytes(shape) if is_quantized else math.prod(shape) * itemsize
    return total + sum(_int8_bytes(shape) for shape in embeddings if int8)


def row_bytes(config: dict[str, Any], itemsize: int, longest_s: float) -> float:
    """Bytes of the keys and values of one row for a passage of so many seconds; 0 where config.json does not say.

    `config`: the checkpoint's. 114,688 bytes a position for the published models in 16 bits.
    """
    thinker = config.get("thinker_config")
    text = (thinker if isinstance(thinker, dict) else config).get("text_config")
    sizes: list[Any] = [text.get(key) for key in _ROW_SIZES] if isinstance(text, dict) else [None]
    return 2 * math.prod(sizes) * itemsize * row_positions(longest_s) if all(type(size) is int for size in sizes) else 0


def row_positions(longest_s: float, tokens: float | None = None) -> int:
    """Positions of a row, for a passage of so many seconds and an answer of so many tokens (None: a usual one)."""
    tokens = longest_s * _TEXT_POSITIONS_PER_S if tokens is None else tokens
    positions = longest_s * _AUDIO_POSITIONS_PER_S + _PROMPT_POSITIONS + tokens
    return math.ceil(positions / _POSITIONS_STEP) * _POSITIONS_STEP


def _int8_bytes(shape: list[int]) -> int:
    return math.prod(shape) + _INT8_BYTES_PER_OUTPUT * shape[0]


def _tensors(folder: Path) -> Iterator[tuple[str, list[int]]]:
    """The name and shape of each tensor in the checkpoint's files; nothing of a file that is damaged."""
    for file in _files(folder):
        try:
            with file.open("rb") as raw:
                length = int.from_bytes(raw.read(8), "little")
                header = json.loads(raw.read(length)) if length <= _MAX_HEADER_BYTES else {}
            yield from [(name, tensor["shape"]) for name, tensor in header.items() if name != "__metadata__"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            _log.info("the header of a safetensors file of the checkpoint cannot be read")


def _files(folder: Path) -> list[Path]:
    """The files that engine/weights.py reads: other safetensors may lie beside them."""
    try:
        index = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))
        return sorted({folder / Path(str(file)).name for file in index["weight_map"].values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return [folder / "model.safetensors"]
