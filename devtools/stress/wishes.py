"""Requests and loads as strategies of hypothesis draw them: languages, prompts, granularities, options.

Hypothesis is the source of examples only, seeded and without its database; what it drew is sent like every other case.
"""

from __future__ import annotations

import json
import string
from collections.abc import Iterator, Mapping
from typing import Any

import hypothesis
from hypothesis import strategies as st

from backend.languages import NAMES
from devtools.stress.cases import Case, Expected
from devtools.stress.sounds import CONTROL_TOKENS

_LONGEST_PROMPT = 8192
_FEW_BYTES = 682  # of a prompt: more may be more tokens than it may have, which the model knows

_TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
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
def _nested(draw: st.DrawFn) -> str:
    """Control tokens inside each other, so that taking one out puts another together."""
    text = draw(st.sampled_from(CONTROL_TOKENS))
    for _ in range(draw(st.integers(0, 6))):
        inner = draw(st.sampled_from((*CONTROL_TOKENS, "\0", "\x1b", "<||>", "<|", "|>")))
        at = draw(st.integers(0, len(text)))
        text = text[:at] + inner + text[at:]
    return text


_PROMPT = st.one_of(
    _TEXT,
    st.lists(st.one_of(_nested(), _TEXT), max_size=4).map("".join),
    st.integers(_LONGEST_PROMPT - 2, _LONGEST_PROMPT + 2).map("x".__mul__),
    st.integers(1, 20).map(lambda times: "<|im_" * times + "end|>" * times),
)
_LANGUAGE: st.SearchStrategy[tuple[str, Expected]] = st.one_of(
    st.sampled_from([*NAMES, *NAMES.values(), "", "auto", "de-DE", "zh_CN", "GERMAN"]).map(lambda name: (name, "good")),
    st.sampled_from(["xx", "klingon", "e", "<|im_end|>", "de;", "../en", "null"]).map(lambda name: (name, "bad")),
    _TEXT.map(lambda name: (name, "either")),
)
_GRANULARITIES = st.lists(st.one_of(st.sampled_from(["word", "segment", "WORD", " Word "]), _TEXT), max_size=4)


@st.composite
def _request(draw: st.DrawFn) -> Case:
    language, expected = draw(_LANGUAGE)
    prompt, translate = draw(_PROMPT), draw(st.integers(0, 19)) == 0
    request = {
        "language": language,
        "prompt": prompt,
        "timestamp_granularities": draw(_GRANULARITIES),
        "translate": translate,
        "diarize": draw(st.booleans()),
        "threads": draw(st.integers(0, 2**32 - 1)),
        "temperature": draw(st.sampled_from([0.0, 1.0, -1.0, 1e30])),
    }
    if translate or len(prompt) > _LONGEST_PROMPT:
        expected = "bad"
    elif expected == "good" and len(prompt.encode()) > _FEW_BYTES:
        expected = "either"
    return Case("requests", f"language {language[:20]!r}, prompt {prompt[:30]!r}", expected, request=request)


@st.composite
def _load(draw: st.DrawFn) -> Case:
    kind = draw(st.sampled_from(["good", "bad", "field", "text", "json"]))
    good = draw(st.lists(st.sampled_from(_GOOD), max_size=3))
    if kind == "good":
        return Case("loads", ", ".join(good)[:60], "good", request={"Options": good}, load=True)
    if kind == "bad":
        wrong = draw(st.sampled_from(_BAD))
        return Case("loads", wrong[:60], "bad", request={"Options": [*good, wrong]}, load=True)
    if kind == "field":
        field = draw(st.sampled_from(_BAD_FIELDS))
        return Case("loads", str(field)[:60], "bad", request=field, load=True)
    if kind == "text":
        text = draw(_TEXT)
        return Case("loads", repr(text), "either", request={"Options": [text]}, load=True)
    value = draw(st.recursive(st.none() | st.booleans() | st.floats() | _TEXT, st.lists, max_leaves=5))
    name = draw(st.sampled_from(["max_new_tokens", "vad", "batch_max_size", string.ascii_letters]))
    return Case(
        "loads", f"{name} in EngineArgs", "either", request={"EngineArgs": json.dumps({name: value})}, load=True
    )


def cases(seed: int, requests: int, loads: int) -> Iterator[Case]:
    """So many of each, and behind them every bad load that is known, once."""
    yield from drawn(_request(), seed, requests)
    yield from drawn(_load(), seed, loads)
    for wrong in _BAD:
        yield Case("known bad loads", wrong[:60], "bad", request={"Options": [wrong]}, load=True)
    for field in _BAD_FIELDS:
        yield Case("known bad loads", str(field)[:60], "bad", request=field, load=True)


def drawn(strategy: st.SearchStrategy[Case], seed: int, count: int) -> list[Case]:
    """The same for the same seed."""
    found: list[Case] = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=max(count, 1),
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(strategy)
    def keep(case: Case) -> None:
        found.append(case)

    keep()
    return found[:count]
