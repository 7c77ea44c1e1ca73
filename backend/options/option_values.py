"""The values that options accept: a parser for each type, and the words for what it takes.

A parser is strict: the text has the type and the range, and is finite, or InvalidOption names the option.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Generic, Literal, TypeVar
from urllib.parse import urlsplit

from backend.errors import InvalidOption, named

T = TypeVar("T")
DType = Literal["auto", "bfloat16", "float16", "float32"]
Device = Literal["auto", "cpu", "cuda", "mps", "xpu"]
Attention = Literal["auto", "sdpa", "eager", "flash_attention_2"]
Quantization = Literal["", "int8"]
Task = Literal["", "transcribe", "align"]
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
TASKS: dict[str, Task] = {"transcribe": "transcribe", "align": "align"}
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

_MAX_REVISION = 200  # characters; git's names are shorter than a file name may be


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


def zero_or(minimum: float, maximum: float) -> Values[float]:
    """0, or numbers from `minimum` to `maximum`."""
    some = number(minimum, maximum)
    none = number(0, 0)

    def parse(name: str, value: str) -> float:
        try:
            return none.parse(name, value)
        except InvalidOption:
            return some.parse(name, value)

    return Values(f"0, or {some.allowed}", parse)


def milliseconds(maximum: int) -> Values[float]:
    """Whole milliseconds, as the gateway's other backends write them, parsed to seconds."""
    whole = integer(0, maximum)
    return Values(whole.allowed, lambda name, value: whole.parse(name, value) / 1000)


def _revision(name: str, value: str) -> str:
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)*", value, re.ASCII) or len(value) > _MAX_REVISION or ".." in value:
        raise InvalidOption(name, f"must be a branch, a tag or a commit of the hub, not '{named(value)}'")
    return value


REVISION = Values("a branch, a tag or a commit", _revision)
MAX_URLS = 64
_URL_PARTS = re.compile(r"[\w.~:/\[\]%-]+", re.ASCII)  # of a URL without user, query and fragment


def _base_url(name: str, text: str) -> str:
    """An http or https URL without what follows the server's root: `http://gpu1:8000/v1/` is `http://gpu1:8000`."""
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is no number, or the brackets of an IPv6 address are not closed
        valid = False
    if not valid or not _URL_PARTS.fullmatch(text):
        form = "URLs such as http://gpu1:8000, without user, password and query"
        raise InvalidOption(name, f"must be {form}, not '{named(_shown(text))}'")
    return text.rstrip("/").removesuffix("/v1").rstrip("/")


def _shown(url: str) -> str:
    """The URL without what may be a password."""
    return re.sub(r"//[^/]*@", "//…@", url)


def _urls(name: str, value: str) -> tuple[str, ...]:
    urls = tuple(_base_url(name, part.strip()) for part in value.split(",") if part.strip())
    if not 0 < len(urls) <= MAX_URLS:
        raise InvalidOption(name, f"must be 1 to {MAX_URLS} URLs, separated by commas")
    return urls


def _variable(name: str, value: str) -> str:
    if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]{0,99}", value):  # it is not quoted: it may be the key itself
        raise InvalidOption(name, "must be the name of an environment variable, and not its value")
    return value


def _absolute_path(name: str, value: str) -> str:
    if not PurePath(value).is_absolute() or "\0" in value:
        raise InvalidOption(name, "must be the path of a file, from the root")
    return value


URLS: Values[tuple[str, ...]] = Values("URLs", _urls)
ENVIRONMENT_VARIABLE: Values[str] = Values("a variable's name", _variable)
ABSOLUTE_PATH: Values[str] = Values("a file's path from the root", _absolute_path)


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
