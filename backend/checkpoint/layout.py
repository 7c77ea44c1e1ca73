"""The two layouts of a Qwen3-ASR or Qwen3-ForcedAligner checkpoint: told apart by config.json, and read as one.

- The package's layout came first (Qwen/Qwen3-ASR-0.6B): the model lies in `thinker_config`, and the names of its
  tensors begin with `thinker.`.
- The native layout is what transformers writes from 5.13 on (Qwen/Qwen3-ASR-0.6B-hf): a flat config, and other names
  for the same tensors.

The engine's modules are named and sized as in the package's layout: `package_config` and `stored_name` translate the
native one to it.
Source: transformers 5.14.1, models/qwen3_asr, and its convert_qwen3_asr_to_hf.py. Derivatives are written by other
versions and by hand: a key that they lack has the value that transformers would take, and a key that moved is read in
both places.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from backend.checkpoint.validation import items
from backend.errors import CheckpointRefused, named

Kind = Literal["recognizer", "aligner"]

EXAMPLES: Mapping[Kind, str] = {"recognizer": "Qwen/Qwen3-ASR-0.6B", "aligner": "Qwen/Qwen3-ForcedAligner-0.6B"}
_MODEL_TYPES = ("qwen3_asr", "qwen3_forced_aligner")
_ALIGNER_NAMES = ("forced_aligner", "forcedaligner", "tokenclassification")  # in a model type or an architecture
_QUANTIZED_KEYS = {"quantization_config", "compression_config", "quantization"}  # the last is MLX's
_DEFAULT_LABELS = 2  # transformers' `num_labels` of a model without classes
_MOST_CLASSES = 1 << 17  # as `classify_num` in validation.py

# What is read of the encoder's config, with transformers' values for what is missing. The package's own
# defaults are others: windows of 4 s instead of 8.
_AUDIO_DEFAULTS = {
    "num_mel_bins": 128, "encoder_layers": 24, "encoder_attention_heads": 16, "encoder_ffn_dim": 4096, "d_model": 1024,
    "activation_function": "gelu", "n_window": 50, "n_window_infer": 800, "output_dim": 3584, "conv_chunksize": 500,
    "downsample_hidden_size": 480,
}  # fmt: skip
# Other names that transformers accepts for them.
_AUDIO_ALIASES = {
    "num_hidden_layers": "encoder_layers", "num_attention_heads": "encoder_attention_heads",
    "intermediate_size": "encoder_ffn_dim", "hidden_size": "d_model",
}  # fmt: skip
_AUDIO_TOKEN = 151676  # transformers' default, and the real tokenizer's
_ROPE_THETA = 1e6  # of all published models; transformers always writes it
_SEGMENT_TIME_MS = 80  # of all published aligners; transformers keeps it with the processor, if at all
_ROPE_KEYS = {"rope_parameters", "rope_scaling", "rope_theta"}
_DTYPE_KEYS = {"dtype", "torch_dtype"}

# Prefixes of the package's names and their native ones. The first that fits holds; the aligner's head is `score`.
_NATIVE_PREFIXES = (
    ("thinker.model.", "model.language_model."),
    ("thinker.audio_tower.proj1.", "model.multi_modal_projector.linear_1."),
    ("thinker.audio_tower.proj2.", "model.multi_modal_projector.linear_2."),
    ("thinker.audio_tower.", "model.audio_tower."),
)
_HEADS: Mapping[Kind, str] = {"recognizer": "lm_head.", "aligner": "score."}


@dataclass(frozen=True)
class Layout:
    """`native`: transformers' layout, else the package's."""

    kind: Kind
    native: bool

    def stored_name(self, parameter: str) -> str:
        """The name in the files of the tensor that the package's model has under the name `parameter`."""
        if self.native:
            for package, native in (*_NATIVE_PREFIXES, ("thinker.lm_head.", _HEADS[self.kind])):
                if parameter.startswith(package):
                    return native + parameter.removeprefix(package)
        return parameter


def layout_of(name: str, config: dict[str, Any], wanted: Kind = "recognizer") -> Layout:
    """The layout of the checkpoint named `name`, by its config.json. `wanted`: what a refusal names as an example.

    Raises CheckpointRefused for a foreign model, and for a Qwen3-ASR in a form that is not known here.
    """
    cause = ""
    model_type = str(config.get("model_type"))
    method = _quantization(config)
    thinker, text = config.get("thinker_config"), config.get("text_config")
    if model_type not in _MODEL_TYPES:
        cause = f"is of the type '{named(model_type)}', which this backend does not run"
    elif method:
        cause = f"is quantised ({named(method)}), but only float weights are read; `quantization: int8` quantises them"
    elif isinstance(thinker, dict):
        return Layout(_kind(config, thinker), native=False)
    elif not isinstance(text, dict) or not isinstance(config.get("audio_config"), dict):
        cause = "could not be loaded: its config.json has neither thinker_config nor audio_config and text_config"
    elif text.get("use_sliding_window"):
        cause = "has a decoder with a sliding window, which is not known here"
    elif config.get("token_classification_bias"):
        cause = "has a head with a bias (token_classification_bias), which is not known here"
    if cause:
        example = EXAMPLES[wanted]
        raise CheckpointRefused(f"the checkpoint '{named(name)}' {cause}; use {example} or {example}-hf")
    return Layout(_kind(config, config), native=True)


def package_config(config: dict[str, Any], layout: Layout, processor: dict[str, Any]) -> dict[str, Any]:
    """`config` in the package's layout; `processor`: the content of processor_config.json, {} without one.

    Raises CheckpointRefused.
    """
    translated = _from_native(config, layout.kind) if layout.native else copy.deepcopy(config)
    thinker = translated["thinker_config"]
    thinker.setdefault("audio_token_id", config.get("audio_token_id", _AUDIO_TOKEN))
    if layout.kind == "aligner":
        thinker["classify_num"] = _class_count(config, config.get("thinker_config") or {})
        translated["timestamp_segment_time"] = _segment_time_ms(config, processor)
    return translated


def _from_native(config: dict[str, Any], kind: Kind) -> dict[str, Any]:
    audio, text = config["audio_config"], config["text_config"]
    aliased = {_AUDIO_ALIASES[key]: value for key, value in audio.items() if key in _AUDIO_ALIASES}
    known = {key: value for key, value in audio.items() if key in _AUDIO_DEFAULTS}
    theta, scaling = _rope(text)
    kept = {key: value for key, value in text.items() if key not in _ROPE_KEYS | _DTYPE_KEYS}
    # transformers goes by the flag at the top, which it writes as true for aligners, too: their head is never tied
    tied = kind == "recognizer" and bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", True)))
    thinker = {
        "audio_config": {**_AUDIO_DEFAULTS, **aliased, **known},
        "text_config": {**kept, "tie_word_embeddings": tied, "rope_theta": theta, "rope_scaling": scaling},
    }
    return {"thinker_config": thinker}


def _rope(text: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """`rope_theta` and `rope_scaling` as the package reads them, from transformers' `rope_parameters` or from these.

    `mrope_section` may be missing: it shares out the positions of three axes, which are equal for speech and text.
    """
    stored = text.get("rope_parameters") or text.get("rope_scaling") or {}
    by_layer_type = stored.get("full_attention")
    parameters = by_layer_type if isinstance(by_layer_type, dict) else stored
    theta = parameters.get("rope_theta", text.get("rope_theta", _ROPE_THETA))
    return theta, {"rope_type": "default", **{k: v for k, v in parameters.items() if k != "rope_theta"}}


def _kind(config: dict[str, Any], thinker: dict[str, Any]) -> Kind:
    names = str((config.get("model_type"), thinker.get("model_type"), config.get("architectures"))).lower()
    has_classes = (_class_count(config, thinker) or 0) > _DEFAULT_LABELS
    return "aligner" if has_classes or any(name in names for name in _ALIGNER_NAMES) else "recognizer"


def _class_count(config: dict[str, Any], thinker: dict[str, Any]) -> int | None:
    """The aligner's time classes: `classify_num`, or `num_labels`, which transformers writes as `id2label`."""
    for part in (thinker, config):
        for count in (part.get("classify_num"), part.get("num_labels")):
            if type(count) is int and 1 <= count <= _MOST_CLASSES:
                return count
    labels = config.get("id2label")
    return len(labels) if isinstance(labels, dict) and labels else None


def _segment_time_ms(config: dict[str, Any], processor: dict[str, Any]) -> float:
    stored = config.get("timestamp_segment_time", processor.get("timestamp_segment_time"))
    if stored is None:
        return _SEGMENT_TIME_MS
    if isinstance(stored, bool) or not isinstance(stored, (int, float)) or not 0 < stored < math.inf:
        raise CheckpointRefused("timestamp_segment_time of the checkpoint is no number of milliseconds")
    return stored


def _quantization(config: dict[str, Any]) -> str:
    """How the weights are quantised; "" if they are not."""
    for key, value in items(config):
        if key in _QUANTIZED_KEYS and value:
            method = value.get("quant_method") if isinstance(value, dict) else None
            return str(method or key)
    return ""
