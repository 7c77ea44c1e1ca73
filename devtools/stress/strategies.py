"""Hypothesis strategies for cases: damaged files, requests (languages, prompts, granularities) and loads (options)."""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

from hypothesis import strategies as st

from backend.languages import NAMES
from devtools.stress.cases import Case, Expected
from devtools.stress.odd_inputs import containers
from devtools.stress.sounds import CONTROL_TOKENS

Mutation: TypeAlias = Callable[[Random, bytes, bytes], bytes]  # of a file, with another file

_EXTREMES = (0, 1, 2, 3, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 36,
             (1 << 63) - 1, (1 << 64) - 1)  # fmt: skip
_WAV_FIELDS = {4: 4, 16: 4, 20: 2, 22: 2, 24: 4, 28: 4, 32: 2, 34: 2, 40: 4}  # offset and length, of a plain header
_PLACES = (1, 4, 12, 36, 44, 64, 128, 512)
_LONGEST_PROMPT = 8192
_FEW_BYTES = 682  # of a prompt: more may be more tokens than the model allows


def _with_flipped_bits(chance: Random, file: bytes, within: int) -> bytes:
    changed = bytearray(file)
    for _ in range(chance.choice((1, 1, 2, 8, 32))):
        changed[chance.randrange(within)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _with_other_numbers(chance: Random, file: bytes, _other: bytes) -> bytes:
    """Sizes, rates, channels, block lengths in the header."""
    changed = bytearray(file)
    for _ in range(chance.choice((1, 1, 2, 3))):
        is_wav = file[:4] in (b"RIFF", b"RF64") and chance.random() < 0.7
        at = chance.choice(list(_WAV_FIELDS)) if is_wav else chance.randrange(min(128, len(file)))
        length = _WAV_FIELDS[at] if is_wav else chance.choice((1, 2, 3, 4, 8))
        value = chance.choice((*_EXTREMES, chance.getrandbits(8 * length))) % (1 << 8 * length)
        changed[at : at + length] = value.to_bytes(length, "little" if is_wav or chance.random() < 0.5 else "big")
    return bytes(changed)


def _with_greatest_length(chance: Random, file: bytes, _other: bytes) -> bytes:
    """FLAC's STREAMINFO says 2^36 - 1 samples; other containers get ones where their lengths usually stand."""
    if file[:4] == b"fLaC":
        return file[:21] + bytes([(file[21:] or b"\0")[0] | 0x0F]) + b"\xff" * 4 + file[26:]
    at = chance.choice((4, 16, 20, 28, 40))
    return (file[:at] + b"\xff" * 4 + file[at + 4 :])[: len(file)]


def _with_piece(chance: Random, file: bytes, other: bytes) -> bytes:
    """Zeros, random bytes, or a piece of the other file in the middle."""
    at, length = chance.randrange(len(file)), chance.choice((1, 3, 16, 512, 4096))
    begin = chance.randrange(len(other))
    piece = chance.choice((bytes(length), chance.randbytes(length), other[begin : begin + length]))
    return file[:at] + piece + file[at:]


def _with_zeros(chance: Random, file: bytes, _other: bytes) -> bytes:
    at, length = chance.randrange(len(file)), chance.choice((4, 64, 512, 4096))
    return file[:at] + bytes(len(file[at : at + length])) + file[at + length :]


def _with_random_tail(chance: Random, file: bytes, _other: bytes) -> bytes:
    header = chance.choice(_PLACES)
    return file[:header] + chance.randbytes(max(len(file) - header, 0))


def _with_repetition(chance: Random, file: bytes, _other: bytes) -> bytes:
    at, length = chance.randrange(len(file)), chance.choice((8, 64, 1024))
    return file[:at] + file[at : at + length] * chance.choice((2, 16, 64)) + file[at:]


MUTATIONS: Mapping[str, Mutation] = {
    "flipped": lambda chance, file, _: _with_flipped_bits(chance, file, len(file)),
    "flipped header": lambda chance, file, _: _with_flipped_bits(
        chance, file, min(chance.choice((16, 64, 400)), len(file))
    ),
    "cut": lambda chance, file, _: file[
        : chance.choice((*_PLACES, len(file) // 2, len(file) - 1, chance.randrange(len(file))))
    ],
    "beheaded": lambda chance, file, _: file[chance.choice((*_PLACES, chance.randrange(len(file)))) :],
    "rewritten": _with_other_numbers,
    "claiming": _with_greatest_length,
    "spliced": lambda chance, file, other: (
        file[: chance.randrange(len(file)) + 1] + other[chance.randrange(len(other)) :]
    ),
    "inserted": _with_piece,
    "blanked": _with_zeros,
    "randomised": _with_random_tail,
    "repeated": _with_repetition,
}  # fmt: skip


@st.composite
def mutants(draw: st.DrawFn, container: str) -> Case:
    """One to three mutations; uniform chance, because hypothesis prefers small numbers: the start of a file."""
    chance = draw(st.randoms(use_true_random=True))
    file, other = containers()[container], chance.choice(list(containers().values()))
    names = chance.choices([*MUTATIONS, "rewritten"], k=chance.choice((1, 1, 1, 2, 3)))
    for name in names:
        file = MUTATIONS[name](chance, file, other) or b"\0"
    return Case(f"mutated {container}", " + ".join(names), "either", file)


_NO_NUMBERS = ("nan", "inf", "-inf", "", "0x10", "abc", "1,5", "--1", "²", "9" * 5000)
_GOOD = (
    "max_new_tokens:256", "batch_max_size:4", "max_inference_batch_size:1", "torch_dtype:bf16", "torch_dtype:FP32",
    "attn_implementation:sdpa", "max_chunk_seconds:2", "max_chunk_seconds:180", "max_audio_seconds:60", "vad:off",
    "vad_threshold:0.05", "segment_gap_threshold:1", "max_segment_chars:10", "forced_aligner:", "forced_aligner:a:b",
)  # fmt: skip
_BAD = (
    *(f"{name}:{value}" for name in ("max_new_tokens", "batch_max_size", "max_chunk_seconds", "vad_threshold",
                                     "max_audio_seconds", "max_segment_chars") for value in _NO_NUMBERS),
    "max_new_tokens:0", "max_new_tokens:-5", "max_new_tokens:8193", "batch_max_size:0", "batch_max_size:257",
    "max_chunk_seconds:1", "max_chunk_seconds:181", "vad:maybe", "torch_dtype:int4", "attn_implementation:evil/kernel",
    "attn_implementation:flash_attention_3", "trust_remote_code:true", "_attn_implementation_internal:x", "unknown:1",
    "no colon", ":", "MAX_NEW_TOKENS:5",
)  # fmt: skip
_BAD_FIELDS: tuple[Mapping[str, Any], ...] = (
    {"Quantization": "int4"}, {"Quantization": "awq"}, {"DType": "int8"}, {"LoraAdapter": "a"}, {"MainGPU": "cuda:x"},
    {"LoraAdapters": ["a"]}, {"TensorParallelSize": 2}, {"MainGPU": "-1"}, {"MainGPU": "²"}, {"MainGPU": "9" * 5000},
    {"FlashAttention": "3"}, {"EngineArgs": "{"}, {"EngineArgs": "[]"}, {"EngineArgs": '{"vad": null}'},
    {"EngineArgs": '{"nothing": 1}'}, {"EngineArgs": "[" * 200_000}, {"EngineArgs": '{"max_new_tokens": 1e999}'},
    {"EngineArgs": '{"max_new_tokens": ' + "9" * 5000 + "}"}, {"EngineArgs": '{"max_new_tokens": NaN}'},
)  # fmt: skip


@st.composite
def _nested_tokens(draw: st.DrawFn) -> str:
    """Control tokens inside each other: removing one of them makes another."""
    text = draw(st.sampled_from(CONTROL_TOKENS))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.sampled_from((*CONTROL_TOKENS, "\0", "\x1b", "<||>", "<|", "|>"))) + text[at:]
    return text


_TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
_PROMPT = st.one_of(
    _TEXT,
    st.lists(st.one_of(_nested_tokens(), _TEXT), max_size=4).map("".join),
    st.integers(_LONGEST_PROMPT - 2, _LONGEST_PROMPT + 2).map("x".__mul__),
    st.integers(1, 20).map(lambda times: "<|im_" * times + "end|>" * times),
)
_LANGUAGE: st.SearchStrategy[tuple[str, Expected]] = st.one_of(
    st.sampled_from([*NAMES, *NAMES.values(), "", "auto", "de-DE", "zh_CN", "GERMAN"]).map(lambda name: (name, "good")),
    st.sampled_from(["xx", "klingon", "e", "<|im_end|>", "de;", "../en", "null"]).map(lambda name: (name, "bad")),
    _TEXT.map(lambda name: (name, "either")),
)
_REQUEST = st.fixed_dictionaries({
    "prompt": _PROMPT,
    "timestamp_granularities": st.lists(st.sampled_from(["word", "segment", "WORD", " Word "]) | _TEXT, max_size=4),
    "translate": st.sampled_from([False] * 19 + [True]),
    "diarize": st.booleans(),
    "threads": st.integers(0, 2**32 - 1),
    "temperature": st.sampled_from([0.0, 1.0, -1.0, 1e30]),
})  # fmt: skip


def _request(language: tuple[str, Expected], fields: dict[str, Any]) -> Case:
    (name, expected), prompt = language, fields["prompt"]
    if fields["translate"] or len(prompt) > _LONGEST_PROMPT:
        expected = "bad"
    elif expected == "good" and len(prompt.encode()) > _FEW_BYTES:
        expected = "either"
    named = f"language {name[:20]!r}, prompt {prompt[:30]!r}"
    return Case("requests", named, expected, request={"language": name, **fields})


REQUESTS = st.builds(_request, _LANGUAGE, _REQUEST)


def _load(expected: Expected, request: Mapping[str, Any], kind: str = "loads") -> Case:
    return Case(kind, str(request)[:60], expected, request=request, load=True)


_GOOD_OPTIONS = st.lists(st.sampled_from(_GOOD), max_size=3)
_JSON = st.recursive(st.none() | st.booleans() | st.floats() | _TEXT, st.lists, max_leaves=5)
_JSON_NAME = st.sampled_from(["max_new_tokens", "vad", "batch_max_size", string.ascii_letters])
LOADS: st.SearchStrategy[Case] = st.one_of(
    _GOOD_OPTIONS.map(lambda good: _load("good", {"Options": good})),
    st.tuples(_GOOD_OPTIONS, st.sampled_from(_BAD)).map(lambda both: _load("bad", {"Options": [*both[0], both[1]]})),
    st.sampled_from(_BAD_FIELDS).map(lambda field: _load("bad", field)),
    _TEXT.map(lambda text: _load("either", {"Options": [text]})),
    st.dictionaries(_JSON_NAME, _JSON, min_size=1, max_size=1).map(
        lambda value: _load("either", {"EngineArgs": json.dumps(value)})
    ),
)


def known_bad_loads(_folder: Path) -> Iterator[Case]:
    for request in (*({"Options": [option]} for option in _BAD), *_BAD_FIELDS):
        yield _load("bad", request, "known bad loads")
