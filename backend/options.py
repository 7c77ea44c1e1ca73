"""What LoadModel and a transcription were asked to do: frozen values, parsed strictly at the door.

Rules: an option nobody knows is an error that lists the known ones; a value is typed, finite and within its range or
refused by name; nothing is guessed and nothing is ignored in silence: what changes nothing here is logged.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from backend.errors import InvalidOption, PromptTooLong, named

_log = logging.getLogger(__name__)

T = TypeVar("T")
DType = Literal["auto", "bfloat16", "float16", "float32"]
Attention = Literal["auto", "sdpa", "eager", "flash_attention_2"]
Quantization = Literal["", "int8"]

_DTYPES: dict[str, DType] = {
    "": "auto",
    "auto": "auto",
    "bf16": "bfloat16",
    "bfloat16": "bfloat16",
    "fp16": "float16",
    "half": "float16",
    "float16": "float16",
    "fp32": "float32",
    "float": "float32",
    "float32": "float32",
}
_QUANTIZATIONS: dict[str, Quantization] = {"": "", "none": "", "int8": "int8"}
_SWITCH = {"on": True, "true": True, "yes": True, "1": True, "off": False, "false": False, "no": False, "0": False}
# "on" and "off" are how the gateway's FlashAttention field is written for other engines.
_ATTENTIONS: dict[str, Attention] = {
    "": "auto",
    "auto": "auto",
    "sdpa": "sdpa",
    "eager": "eager",
    "flash_attention_2": "flash_attention_2",
    "on": "flash_attention_2",
    "true": "flash_attention_2",
    "off": "sdpa",
    "false": "sdpa",
}


@dataclass(frozen=True)
class LoadOptions:
    """LoadModel's request. Seconds are `_s`; None means: the backend decides."""

    model: str
    model_file: str = ""
    model_path: str = ""
    forced_aligner: str = ""
    cuda: bool = False
    main_gpu: int | None = None
    threads: int | None = None
    dtype: DType = "auto"
    attention: Attention = "auto"
    quantization: Quantization = ""
    batch_max_size: int = 8
    batch_wait_s: float = 0.0
    cuda_graphs: bool = True
    max_new_tokens: int | None = None
    # Nearly two of the encoder's windows: a cut finds a pause between sentences, the many chunks of a long recording
    # fill a batch, and a loop or a lost passage is never long. More gives the model more context.
    max_chunk_s: float = 15.0
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
    """One transcription's wishes. `language` is a code, or None to detect it."""

    language: str | None = None
    prompt: str = ""
    times: bool = False  # asked for with `word` or `segment`: the aligner's times, where there is an aligner
    words: bool = False


@dataclass(frozen=True)
class _Knob:
    field: str
    parse: Callable[[str, str], Any]


def _integer(least: int, most: int) -> Callable[[str, str], int]:
    def parse(name: str, value: str) -> int:
        if not re.fullmatch(r"[+-]?\d{1,12}", value) or not least <= int(value) <= most:
            raise InvalidOption(name, f"must be a whole number from {least} to {most}, not '{named(value)}'")
        return int(value)

    return parse


def _number(least: float, most: float) -> Callable[[str, str], float]:
    def parse(name: str, value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not least <= number <= most:  # false for nan, too
            raise InvalidOption(name, f"must be a number from {least:g} to {most:g}, not '{named(value)}'")
        return number

    return parse


def _milliseconds(most: int) -> Callable[[str, str], float]:
    """Written in milliseconds, as the sibling backends have it; seconds everywhere else."""
    return lambda name, value: _integer(0, most)(name, value) / 1000


def _one_of(known: Mapping[str, T]) -> Callable[[str, str], T]:
    def parse(name: str, value: str) -> T:
        if value.lower() not in known:
            raise InvalidOption(name, f"must be one of {', '.join(filter(None, known))}, not '{named(value)}'")
        return known[value.lower()]

    return parse


def _text(_name: str, value: str) -> str:
    return value


_BATCH = _Knob("batch_max_size", _integer(1, 256))
OPTIONS: dict[str, _Knob] = {
    "forced_aligner": _Knob("forced_aligner", _text),
    "torch_dtype": _Knob("dtype", _one_of(_DTYPES)),
    "attn_implementation": _Knob("attention", _one_of(_ATTENTIONS)),
    "max_inference_batch_size": _BATCH,
    "batch_max_size": _BATCH,
    "batch_max_wait_ms": _Knob("batch_wait_s", _milliseconds(10_000)),
    "cuda_graphs": _Knob("cuda_graphs", _one_of(_SWITCH)),
    "max_new_tokens": _Knob("max_new_tokens", _integer(1, 8192)),
    "max_chunk_seconds": _Knob("max_chunk_s", _number(2, 180)),
    "max_audio_seconds": _Knob("max_audio_s", _number(1, 24 * 3600)),  # as much as is held (pipeline/admission.py)
    "aligner_retry_seconds": _Knob("aligner_retry_s", _number(0, 24 * 3600)),
    "segment_gap_threshold": _Knob("segment_gap_s", _number(0.01, 3600)),
    "max_segment_seconds": _Knob("max_segment_s", _number(0.5, 3600)),
    "max_segment_chars": _Knob("max_segment_chars", _integer(1, 10_000)),
    "vad": _Knob("vad", _one_of(_SWITCH)),
    "vad_threshold": _Knob("vad_threshold", _number(0.05, 0.95)),
    "vad_min_speech_seconds": _Knob("vad_min_speech_s", _number(0, 5)),
    "vad_min_silence_seconds": _Knob("vad_min_silence_s", _number(0, 5)),
    "vad_margin_seconds": _Knob("vad_margin_s", _number(0, 5)),
}


# Gateways of early 2026 append these to every model's options on a machine with a GPU. They are llama.cpp's.
_NOT_OURS = {"parallel", "cache_reuse"}


def with_options(options: LoadOptions, pairs: Iterable[str], engine_args: str) -> LoadOptions:
    """`options` with the operator's `name:value` pairs and the JSON object `engine_args` applied, the latter last."""
    for pair in pairs:
        name, colon, value = pair.partition(":")
        if not colon:
            raise InvalidOption(pair, "has no value; write it as name:value")
        options = _applied(options, name.strip(), value.strip())
    if engine_args.strip():
        try:
            arguments = json.loads(engine_args)
        except (ValueError, RecursionError):  # the latter: brackets in brackets
            arguments = None
        if not isinstance(arguments, dict):
            raise InvalidOption("EngineArgs", "must be a JSON object of option names and values")
        for name, value in arguments.items():
            if type(value) not in (str, int, float, bool):
                raise InvalidOption(name, "must be a string, a number, true or false in EngineArgs")
            options = _applied(options, name, str(value))
    return options


def _applied(options: LoadOptions, name: str, value: str) -> LoadOptions:
    if name in _NOT_OURS:
        _log.info("the option '%s' is another engine's; it changes nothing here", name)
        return options
    knob = OPTIONS.get(name)
    if knob is _BATCH and value == "-1":
        _log.info("'%s:-1', no bound, is more than a machine has; the default stays", name)
        return options
    if knob is None:
        raise InvalidOption(name, f"is not known; known options: {', '.join(sorted(OPTIONS))}")
    return replace(options, **{knob.field: knob.parse(name, value)})


def dtype_of(value: str) -> DType:
    """The DType field of ModelOptions."""
    return _one_of(_DTYPES)("DType", value)


def attention_of(value: str) -> Attention:
    """The FlashAttention field of ModelOptions."""
    return _one_of(_ATTENTIONS)("FlashAttention", value)


def quantization_of(value: str) -> Quantization:
    """The Quantization field of ModelOptions; what is not known is refused by name rather than ignored."""
    return _one_of(_QUANTIZATIONS)("Quantization", value)


_CONTROL_TOKEN = re.compile(r"<\|[^<>]*?\|>|<asr_text>|<timestamp>", re.IGNORECASE)
_CONTROL_CHARACTER = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_DEEPEST_NEST = 8  # thousands would take a quarter of a second, in which Health waits
_LONGEST_PROMPT = (
    8192  # characters; more is a document, for which every chunk would pay; pipeline/transcriber.py counts tokens
)


def sanitized_prompt(prompt: str) -> str:
    """The request's context without anything that the model's template gives a meaning to.

    Removal runs to a fixpoint, so that pieces around a removed token cannot form a new one; a prompt that was made to
    do so again and again loses every `<`. Raises PromptTooLong.
    """
    if len(prompt) > _LONGEST_PROMPT:
        raise PromptTooLong(len(prompt), _LONGEST_PROMPT, "characters")
    prompt = _CONTROL_CHARACTER.sub(" ", prompt)
    for _ in range(_DEEPEST_NEST):
        cleaner = _CONTROL_TOKEN.sub("", prompt)
        if cleaner == prompt:
            return prompt.strip()
        prompt = cleaner
    return prompt.replace("<", "").strip()
