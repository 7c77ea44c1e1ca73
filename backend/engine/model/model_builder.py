"""Builds the model of a checkpoint: the package's modules without weights, then the weights, our encoder and decoder.

Two steps, for a recogniser and an aligner alike: `build_model` reads the checkpoint's configuration and makes the
modules on torch's `meta` device; `load_weights` reads the tensors, one stack of layers after the other, so that nothing
is in memory twice.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from transformers import GenerationConfig

from backend.checkpoint.find import Checkpoint
from backend.checkpoint.hub import fetch
from backend.checkpoint.layout import layout_of, package_config
from backend.checkpoint.validation import read_json_object, validate
from backend.engine.model.decoder import Decoder
from backend.engine.model.encoder import Encoder
from backend.engine.model.qwen_package import Qwen3ASRConfig, Qwen3ASRForConditionalGeneration, Qwen3ASRProcessor
from backend.engine.model.windowed_attention import use_windows
from backend.engine.ops.device import Placement
from backend.engine.ops.linear import Layer, MakeLayer, PackedLinear, dense_linear, pack_linears
from backend.engine.processor import make_processor, read_optional
from backend.engine.weights import Weights
from backend.errors import CheckpointRefused, named

_log = logging.getLogger(__name__)

# transformers builds a model under another default dtype, which is process-wide. Whoever computes with new tensors of
# the default dtype meanwhile, as the mel filter bank is, holds this lock.
default_dtype_lock = threading.Lock()


@dataclass
class BuiltModel:
    """A recogniser or an aligner. Its parameters are on `meta` until `weights` fills them; its buffers are in place."""

    model: Qwen3ASRForConditionalGeneration
    processor: Qwen3ASRProcessor
    weights: Weights
    folder: Path


def build_model(checkpoint: Checkpoint, placement: Placement) -> BuiltModel:
    """The modules of a checkpoint. Raises CheckpointRefused where its files are not what its config.json promises."""
    try:
        folder = Path(checkpoint.name) if checkpoint.local else fetch(checkpoint.name)
        validate(folder)
        stored = read_json_object(folder / "config.json")
        layout = layout_of(checkpoint.name, stored)
        translated = package_config(stored, layout, read_optional(folder / "processor_config.json"))
        config = Qwen3ASRConfig.from_dict(translated)
        with default_dtype_lock, init_empty_weights(include_buffers=False):
            model = Qwen3ASRForConditionalGeneration._from_config(
                config, dtype=placement.dtype, attn_implementation=placement.attention
            )
        model.thinker.tie_weights()
        if layout.kind == "recognizer":
            model.generation_config = _generation_config(folder, stored)
        processor = make_processor(folder, layout.native)
        weights = Weights(folder, model, placement, layout.stored_name)
    except CheckpointRefused:
        raise
    except Exception as error:  # foreign code: transformers, safetensors and the hub document no common error
        _log.exception("the checkpoint could not be loaded")
        raise CheckpointRefused(
            f"the checkpoint '{named(checkpoint.name)}' could not be loaded ({type(error).__name__}); "
            "its files are incomplete, damaged or out of reach"
        ) from error
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(placement.device))
    if placement.attention != "flash_attention_2":  # flash-attn uses the windows' ends by itself
        use_windows(model)
    return BuiltModel(model.eval(), processor, weights, folder)


def _generation_config(folder: Path, config: dict[str, Any]) -> GenerationConfig:
    """The tokens that end an answer, and nothing else: transformers warns of a temperature in greedy decoding.

    They are in generation_config.json; a derivative without that file may have them in config.json.
    """
    path = folder / "generation_config.json"
    stored = read_json_object(path) if path.is_file() else config
    if not path.is_file() and config.get("eos_token_id") is None:
        raise CheckpointRefused(
            "the checkpoint could not be loaded: it has no generation_config.json, and no eos_token_id in config.json"
        )
    return GenerationConfig(eos_token_id=stored.get("eos_token_id"), pad_token_id=stored.get("pad_token_id"))


def load_weights(built: BuiltModel, make_layer: MakeLayer, quantized: bool = False) -> Decoder:
    """Read the weights, replace the package's encoder with ours, and give our decoder the package's linear layers.

    `make_layer` makes the decoder's linear layers; `quantized`: in int8. Closes the checkpoint's files.
    """
    thinker, weights = built.model.thinker, built.weights
    pack_linears(thinker.audio_tower, weights.fill_in_scratch)
    linears = {m for layer in thinker.model.layers for m in layer.modules() if isinstance(m, torch.nn.Linear)}
    weights.fill(m for m in built.model.modules() if m not in linears and not any(m.children()))
    thinker.audio_tower = Encoder(thinker.audio_tower)
    embedding = thinker.model.embed_tokens.weight  # tied to the LM head in all recognisers so far

    def make(modules: Sequence[torch.nn.Linear]) -> Layer:
        weights.fill_in_scratch(modules)  # each stack is read to where the one before it was
        return dense_linear(modules) if modules[0].weight is embedding and not quantized else make_layer(modules)

    quantized_on_cpu = quantized and embedding.device.type == "cpu"
    decoder = Decoder(thinker, make, torch.float32 if quantized_on_cpu else None)  # int8 layers on CPUs take float32
    weights.close()
    return decoder


def weight_bytes(model: torch.nn.Module) -> int:
    """Bytes of a model's distinct tensors: tied weights count once."""
    tensors = {t.data_ptr(): t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers())}
    return sum(tensors.values()) + sum(part.bytes for part in model.modules() if isinstance(part, PackedLinear))
