"""Builds the model of a checkpoint: modules without weights, then the weights, packed for the device, and our decoder.

Two steps, for a recogniser and an aligner alike: `build_model` reads the checkpoint's small files and makes the modules
on torch's `meta` device; `load_weights` reads the tensors, one stack of layers after the other, so that nothing is in
memory twice.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from backend.checkpoint.files import check
from backend.checkpoint.find import Checkpoint
from backend.checkpoint.hub import fetch
from backend.checkpoint.layout import layout_of, package_config
from backend.checkpoint.model_config import model_config
from backend.checkpoint.validation import read_json_object, read_optional, validate
from backend.engine.model.decoder import Decoder
from backend.engine.model.qwen_model import QwenModel
from backend.engine.ops.device import Placement
from backend.engine.ops.linear import Layer, MakeLayer, PackedLinear, dense_linear, pack_linears
from backend.engine.processor import Processor, make_processor
from backend.engine.weights import Weights
from backend.errors import CheckpointRefused, named
from backend.process.machine.system_cause import system_cause

_log = logging.getLogger(__name__)


@dataclass
class BuiltModel:
    """A recogniser or an aligner. Its parameters are on `meta` until `weights` fills them.

    `eos_token_id`: what a recogniser's files say, as it is; None for an aligner.
    """

    model: QwenModel
    processor: Processor
    weights: Weights
    folder: Path
    eos_token_id: Any = None


def build_model(checkpoint: Checkpoint, placement: Placement) -> BuiltModel:
    """The modules of a checkpoint. Raises CheckpointRefused where its files are not what its config.json promises."""
    try:
        folder = Path(checkpoint.name) if checkpoint.local else fetch(checkpoint.name, checkpoint.revision)
        check(folder)
        validate(folder)
        stored = read_json_object(folder / "config.json")
        layout = layout_of(checkpoint.name, stored)
        translated = package_config(stored, layout, read_optional(folder / "processor_config.json"))
        model = QwenModel(model_config(translated, layout.kind), placement).eval()
        eos_token_id = _eos_token_id(folder, stored) if layout.kind == "recognizer" else None
        processor = make_processor(folder, model.config.encoder.mels)
        weights = Weights(folder, model, placement, layout.stored_name)
    except CheckpointRefused:
        raise
    except Exception as error:  # foreign code: tokenizers, safetensors and the hub document no common error
        _log.exception("the checkpoint could not be loaded")
        cause = system_cause(error) or "its files are incomplete or damaged"
        raise CheckpointRefused(
            f"the checkpoint '{named(checkpoint.name)}' could not be loaded ({type(error).__name__}): {cause}"
        ) from error
    return BuiltModel(model, processor, weights, folder, eos_token_id)


def _eos_token_id(folder: Path, config: dict[str, Any]) -> Any:
    """The tokens that end an answer, as generation_config.json says; a derivative without it may say it in config.json.

    Nothing else in that file matters: decoding is greedy.
    """
    path = folder / "generation_config.json"
    stored = read_json_object(path) if path.is_file() else config
    if not path.is_file() and config.get("eos_token_id") is None:
        raise CheckpointRefused(
            "the checkpoint could not be loaded: it has no generation_config.json, and no eos_token_id in config.json"
        )
    return stored.get("eos_token_id")


def load_weights(built: BuiltModel, make_layer: MakeLayer, quantized: bool = False) -> Decoder:
    """Read the weights, make the encoder ready for its device, and the decoder of what the modules hold.

    `make_layer` makes the decoder's linear layers; `quantized`: in int8. Closes the checkpoint's files.
    """
    thinker, weights = built.model.thinker, built.weights
    pack_linears(thinker.audio_tower, weights.fill_in_scratch)
    linears = {m for layer in thinker.model.layers for m in layer.modules() if isinstance(m, torch.nn.Linear)}
    weights.fill(m for m in built.model.modules() if m not in linears and not any(m.children()))
    thinker.audio_tower.place(built.model.device)
    embedding = thinker.model.embed_tokens.weight  # tied to the LM head in all recognisers so far

    def make(modules: Sequence[torch.nn.Linear]) -> Layer:
        weights.fill_in_scratch(modules)  # each stack is read to where the one before it was
        return dense_linear(modules) if modules[0].weight is embedding and not quantized else make_layer(modules)

    quantized_on_cpu = quantized and embedding.device.type == "cpu"
    dtype = torch.float32 if quantized_on_cpu else None  # which int8 layers on CPUs take
    decoder = Decoder(thinker, built.model.config.decoder, make, dtype)
    weights.close()
    return decoder


def weight_bytes(model: torch.nn.Module) -> int:
    """Bytes of a model's distinct tensors: tied weights count once."""
    tensors = {t.data_ptr(): t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers())}
    return sum(tensors.values()) + sum(part.bytes for part in model.modules() if isinstance(part, PackedLinear))
