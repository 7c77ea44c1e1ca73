"""The values that options accept: a parser for each type, and the words for what it takes.

A parser is strict: the text has the type and the range, and is finite, or InvalidOption names the option.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from backend.errors import InvalidOption, named

T = TypeVar("T")
DType = Literal["auto", "bfloat16", "float16", "float32"]
Device = Literal["auto", "cpu", "cuda", "mps", "xpu"]
Attention = Literal["auto", "sdpa", "eager", "flash_attention_2"]
Quantization = Literal["", "int8"]
EndOfUtterance = Literal["sentence", "pause", "off"]

DTYPES: dict[str, DType] = {
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
DEVICES: dict[str, Device] = {"auto": "auto", "cpu": "cpu", "cuda": "cuda", "mps": "mps", "xpu": "xpu"}
QUANTIZATIONS: dict[str, Quantization] = {"": "", "none": "", "int8": "int8"}
ENDS_OF_UTTERANCE: dict[str, EndOfUtterance] = {"sentence": "sentence", "pause": "pause", "off": "off"}
SWITCH = {"on": True, "true": True, "yes": True, "1": True, "off": False, "false": False, "no": False, "0": False}
# "on" and "off" are how the gateway's FlashAttention field is written for other engines.
ATTENTIONS: dict[str, Attention] = {
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
class Values(Generic[T]):
    """`allowed`: the values in words. `parse`: (the option's name, text) -> value; raises InvalidOption."""

    allowed: str
    parse: Callable[[str, str], T]


def integer(minimum: int, maximum: int) -> Values[int]:
    """Whole numbers from `minimum` to `maximum`."""
    allowed = f"{minimum} to {maximum}"

    def parse(name: str, value: str) -> int:
        if not re.fullmatch(r"[+-]?\d{1,12}", value) or not minimum <= int(value) <= maximum:
            raise InvalidOption(name, f"must be a whole number from {allowed}, not '{named(value)}'")
        return int(value)

    return Values(allowed, parse)


def number(minimum: float, maximum: float) -> Values[float]:
    """Numbers from `minimum` to `maximum`."""
    allowed = f"{minimum:g} to {maximum:g}"

    def parse(name: str, value: str) -> float:
        try:
            parsed = float(value)
        except ValueError:
            parsed = math.nan
        if not minimum <= parsed <= maximum:  # also true for NaN
            raise InvalidOption(name, f"must be a number from {allowed}, not '{named(value)}'")
        return parsed

    return Values(allowed, parse)


def milliseconds(maximum: int) -> Values[float]:
    """Whole milliseconds, as the gateway's other backends write them, parsed to seconds."""
    whole = integer(0, maximum)
    return Values(whole.allowed, lambda name, value: whole.parse(name, value) / 1000)


def one_of(values: Mapping[str, T]) -> Values[T]:
    """The keys of `values`, in any case."""
    allowed = ", ".join(filter(None, values))

    def parse(name: str, value: str) -> T:
        if value.lower() not in values:
            raise InvalidOption(name, f"must be one of {allowed}, not '{named(value)}'")
        return values[value.lower()]

    return Values(allowed, parse)


def dtype_of(value: str) -> DType:
    """The dtype of ModelOptions.DType. Raises InvalidOption."""
    return one_of(DTYPES).parse("DType", value)


def attention_of(value: str) -> Attention:
    """The attention of ModelOptions.FlashAttention. Raises InvalidOption."""
    return one_of(ATTENTIONS).parse("FlashAttention", value)


def quantization_of(value: str) -> Quantization:
    """The quantisation of ModelOptions.Quantization. Raises InvalidOption: an unknown one is not ignored."""
    return one_of(QUANTIZATIONS).parse("Quantization", value)
