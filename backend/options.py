"""Options of LoadModel and of a transcription: frozen values, and a strict parser of the operator's `name:value` pairs.

- An unknown option is an error that lists the known ones.
- A value has the option's type and range, and is finite, or it is refused by the option's name.
- Nothing is guessed, and nothing is ignored silently: an option without an effect is logged.
- docs/options.md lists every option; test/test_options.py compares it with OPTIONS.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from backend.errors import InvalidOption
from backend.option_values import (
    ATTENTIONS,
    DEVICES,
    DTYPES,
    SWITCH,
    Attention,
    Device,
    DType,
    Quantization,
    Values,
    integer,
    milliseconds,
    number,
    one_of,
)

_log = logging.getLogger(__name__)

MIN_CHUNK_S, MAX_CHUNK_S = 2.0, 180.0  # the range of max_chunk_seconds, and of a checkpoint's own chunk length


@dataclass(frozen=True)
class LoadOptions:
    """LoadModel's request. Names that end in `_s` are seconds. None: the backend chooses."""

    model: str
    model_file: str = ""
    model_path: str = ""
    forced_aligner: str = ""
    device: Device = "auto"
    cuda: bool = False
    main_gpu: int | None = None
    threads: int | None = None
    dtype: DType = "auto"
    attention: Attention = "auto"
    quantization: Quantization = ""
    batch_max_size: int | None = None
    batch_wait_s: float = 0.0
    cuda_graphs: bool = True
    max_new_tokens: int | None = None
    max_chunk_s: float | None = None  # None: the checkpoint's own, see serving/protocols.Recognizer
    max_audio_s: float = 6 * 3600.0
    aligner_retry_s: float = 60.0
    segment_gap_s: float | None = None
    max_segment_s: float | None = None
    max_segment_chars: int | None = None
    vad: bool = True
    vad_threshold: float = 0.5
    vad_min_speech_s: float = 0.1
    vad_min_silence_s: float = 0.1
    vad_margin_s: float = 1.0


@dataclass(frozen=True)
class TranscribeOptions:
    """The options of one transcription. `language`: a code, or None to detect it.

    `times`: `word` or `segment` was requested, so the aligner runs if there is one. `words`: `word` was requested.
    """

    language: str | None = None
    prompt: str = ""
    times: bool = False
    words: bool = False


@dataclass(frozen=True)
class Option:
    """A row of docs/options.md: the field of LoadOptions that it sets, its values, its default and its meaning."""

    field: str
    values: Values[Any]
    default: str
    meaning: str


_BATCH = integer(1, 256)
OPTIONS: dict[str, Option] = {
    "forced_aligner": Option(
        "forced_aligner",
        Values("a hub id or a folder", lambda _, value: value),
        "none",
        "The Qwen3-ForcedAligner checkpoint; without it there are no word times.",
    ),
    "device": Option(
        "device",
        one_of(DEVICES),
        "auto",
        "Where the models compute: cpu, cuda (NVIDIA; AMD by ROCm, too), mps (Apple) or xpu (Intel); a device that is "
        "not there is refused. auto: a GPU, and the CPU where torch is built without one.",
    ),
    "torch_dtype": Option(
        "dtype",
        one_of(DTYPES),
        "auto",
        "Data type of the weights; auto: bf16 where the device computes it well, fp16 on Turing (fp32 if the "
        "model overflows in it), fp32 otherwise.",
    ),
    "attn_implementation": Option(
        "attention",
        one_of(ATTENTIONS),
        "auto",
        "Attention of the encoder: torch's (auto, sdpa, off, false; eager is the same), or flash_attention_2 (on, "
        "true), which is refused if flash-attn cannot be imported or does not know the GPU (before Ampere).",
    ),
    "batch_max_size": Option(
        "batch_max_size",
        _BATCH,
        "by device",
        "Most passages that are recognised or aligned together. By default 8; on a GPU 32 from 12 GB of memory and 64 "
        "from 24 GB; with `low_vram` 2. -1: the default.",
    ),
    "max_inference_batch_size": Option("batch_max_size", _BATCH, "by device", "Another name of `batch_max_size`."),
    "batch_max_wait_ms": Option(
        "batch_wait_s",
        milliseconds(10_000),
        "0",
        "Milliseconds that a new batch waits for more passages; 0: it starts at once, and passages join it while it "
        "runs.",
    ),
    "cuda_graphs": Option(
        "cuda_graphs",
        one_of(SWITCH),
        "on",
        "Capture and replay the decode steps on CUDA and ROCm, if a check at load shows that replayed steps are right; "
        "reserves the memory of the largest batch's KV cache.",
    ),
    "max_new_tokens": Option(
        "max_new_tokens",
        integer(1, 8192),
        "by length",
        "Token budget of a passage, if it is less than the one by length; a passage that exhausts it is split and "
        "recognised again.",
    ),
    "max_chunk_seconds": Option(
        "max_chunk_s",
        number(MIN_CHUNK_S, MAX_CHUNK_S),
        "by checkpoint",
        "Longest passage that is given to the models, in seconds, at most 60 if times are asked for; longer passages "
        "have more context. By checkpoint: `chunk_length` of its preprocessor_config.json, 30 in the published ones.",
    ),
    "max_audio_seconds": Option(
        "max_audio_s",
        number(1, 24 * 3600),  # the audio that admission control lets into memory (pipeline/admission.py)
        "21600",
        "Longest recording that is accepted, in seconds.",
    ),
    "aligner_retry_seconds": Option(
        "aligner_retry_s",
        number(0, 24 * 3600),
        "60",
        "Seconds between a failed load of the aligner and the next attempt.",
    ),
    "segment_gap_threshold": Option(
        "segment_gap_s",
        number(0.01, 3600),
        "max(4 × median gap, 0.3)",
        "Pause that ends a segment, in seconds.",
    ),
    "max_segment_seconds": Option(
        "max_segment_s",
        number(0.5, 3600),
        "off",
        "Longer segments, in seconds, are cut at clause marks, then at their widest gap.",
    ),
    "max_segment_chars": Option(
        "max_segment_chars",
        integer(1, 10_000),
        "off",
        "Longer segments, in characters, are cut at clause marks, then at their widest gap.",
    ),
    "vad": Option(
        "vad",
        one_of(SWITCH),
        "on",
        "Voice activity detection; off: everything is given to the model, silence and noise too.",
    ),
    "vad_threshold": Option(
        "vad_threshold",
        number(0.05, 0.95),
        "0.5",
        "Likelihood from which a frame of 32 ms is speech; a lower value detects more speech.",
    ),
    "vad_min_speech_seconds": Option(
        "vad_min_speech_s", number(0, 5), "0.1", "Shorter speech, in seconds, is not counted as speech."
    ),
    "vad_min_silence_seconds": Option(
        "vad_min_silence_s", number(0, 5), "0.1", "Shorter silence, in seconds, does not interrupt speech."
    ),
    "vad_margin_seconds": Option(
        "vad_margin_s", number(0, 5), "1", "Seconds of audio that are kept on both sides of speech."
    ),
}


# Some gateways (early 2026) add these options of llama.cpp to every model on a machine with a GPU.
_IGNORED = {"parallel", "cache_reuse"}


def with_options(options: LoadOptions, pairs: Iterable[str], engine_args: str) -> LoadOptions:
    """`options` with the operator's `name:value` pairs and then the JSON object `engine_args` applied.

    Raises InvalidOption.
    """
    for pair in pairs:
        name, colon, value = pair.partition(":")
        if not colon:
            raise InvalidOption(pair, "has no value; write it as name:value")
        options = _applied(options, name.strip(), value.strip())
    if engine_args.strip():
        try:
            arguments = json.loads(engine_args)
        except (ValueError, RecursionError):  # RecursionError: deeply nested brackets
            arguments = None
        if not isinstance(arguments, dict):
            raise InvalidOption("EngineArgs", "must be a JSON object of option names and values")
        for name, value in arguments.items():
            if type(value) not in (str, int, float, bool):
                raise InvalidOption(name, "must be a string, a number, true or false in EngineArgs")
            options = _applied(options, name, str(value))
    return options


def _applied(options: LoadOptions, name: str, value: str) -> LoadOptions:
    if name in _IGNORED:
        _log.info("the option '%s' is another engine's; it changes nothing here", name)
        return options
    option = OPTIONS.get(name)
    if option is None:
        raise InvalidOption(name, f"is not known; known options: {', '.join(sorted(OPTIONS))}")
    if option.values is _BATCH and value == "-1":
        _log.info("'%s:-1', no bound, is more than a machine has; the default stays", name)
        return options
    return replace(options, **{option.field: option.values.parse(name, value)})
