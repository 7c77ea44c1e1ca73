from __future__ import annotations

import json
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import InvalidOption, LoadRefused
from backend.option_values import quantization_of
from backend.options import OPTIONS, LoadOptions, with_options

BARE = LoadOptions(model="m")


def test_every_knob_sets_its_field() -> None:
    pairs = [
        "forced_aligner:C:/models/aligner", "torch_dtype:bf16", "attn_implementation:sdpa", "batch_max_size:4",
        "batch_max_wait_ms:250", "max_new_tokens:256", "max_chunk_seconds:45.5", "max_audio_seconds:60",
        "aligner_retry_seconds:0", "segment_gap_threshold:0.7", "max_segment_seconds:7", "max_segment_chars:84",
        "cuda_graphs:off",
    ]  # fmt: skip
    assert with_options(BARE, pairs, "") == LoadOptions(
        model="m", forced_aligner="C:/models/aligner", dtype="bfloat16", attention="sdpa", batch_max_size=4,
        batch_wait_s=0.25, max_new_tokens=256, max_chunk_s=45.5, max_audio_s=60, aligner_retry_s=0, segment_gap_s=0.7,
        max_segment_s=7, max_segment_chars=84, cuda_graphs=False,
    )  # fmt: skip


def test_the_old_name_of_the_batch_size_still_works() -> None:
    assert with_options(BARE, ["max_inference_batch_size: 3 "], "").batch_max_size == 3


@pytest.mark.parametrize("spelling", ["fp16", "half", "float16", "FP16"])
def test_a_dtype_has_several_spellings(spelling: str) -> None:
    assert with_options(BARE, [f"torch_dtype:{spelling}"], "").dtype == "float16"


def test_engine_args_say_the_same_things_in_json_and_win() -> None:
    options = with_options(BARE, ["max_new_tokens:1"], '{"max_new_tokens": 64, "torch_dtype": "fp32"}')
    assert (options.max_new_tokens, options.dtype) == (64, "float32")


@pytest.mark.parametrize(
    "pair",
    [
        "max_new_tokens:nan", "max_new_tokens:0", "max_new_tokens:-5", "max_new_tokens:1e3", "max_new_tokens:",
        "max_new_tokens:９９９９９９９９９９９９９９",
        "segment_gap_threshold:nan", "segment_gap_threshold:inf", "segment_gap_threshold:-1",
        "torch_dtype:int8", "attn_implementation:kernels-community/evil", "batch_max_size:1.5", "max_new_tokens",
    ],
)  # fmt: skip
def test_a_value_out_of_its_range_is_refused_by_name(pair: str) -> None:
    with pytest.raises(InvalidOption, match=pair.partition(":")[0]):
        with_options(BARE, [pair], "")


def test_an_unknown_option_lists_the_known_ones() -> None:
    with pytest.raises(InvalidOption) as caught:
        with_options(BARE, ["max_tokens:5"], "")
    assert "max_tokens" in str(caught.value)
    assert all(name in str(caught.value) for name in OPTIONS)


def test_switches_are_on_or_off_in_both_ways_of_writing_them() -> None:
    assert BARE.vad
    assert not with_options(BARE, ["vad:off"], "").vad
    assert not with_options(BARE, [], '{"vad": false}').vad
    assert with_options(BARE, ["vad:Off", "vad:TRUE"], "").vad
    with pytest.raises(InvalidOption, match="one of on, true"):
        with_options(BARE, ["vad:maybe"], "")


@pytest.mark.parametrize("arguments", ["[]", "{", '"x"', '{"unknown": 1}', '{"max_new_tokens": true}', '{"a": {}}'])
def test_engine_args_that_mean_nothing_are_refused(arguments: str) -> None:
    with pytest.raises(InvalidOption):
        with_options(BARE, [], arguments)


def test_quantization_is_refused_by_name() -> None:
    assert (quantization_of(""), quantization_of("none"), quantization_of("INT8")) == ("", "", "int8")
    with pytest.raises(LoadRefused, match="q4_0"):
        quantization_of("q4_0")


NASTY = st.text() | st.sampled_from(
    ["connection refused", "Connection Reset by peer", "dial tcp: no such host", "model not loaded", "UNAVAILABLE",
     "x" * 100_000, "a\nb", "\x00", "\x1b[2J", "\u202e", "nan", "1e999", "-0", "9" * 5000, "[" * 3000, "{}"]
)  # fmt: skip


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.sampled_from([*OPTIONS, "EngineArgs", "Quantization"]) | NASTY, NASTY, st.booleans())
def test_no_option_fails_in_another_way_or_with_a_text_that_does_harm(name: str, value: str, as_json: bool) -> None:
    try:
        with_options(BARE, [] if as_json else [f"{name}:{value}"], json.dumps({name: value}) if as_json else "")
        with_options(BARE, [name], value)
        quantization_of(value)
    except InvalidOption as error:
        said = str(error)
        assert len(said) < 1000
        assert said.isprintable()
        for harmful in ("connection refused", "connection reset", "no such host", "model not loaded", "unavailable"):
            assert harmful not in said.lower()


@pytest.mark.parametrize("pair", ["max_inference_batch_size:-1", "batch_max_size:-1", "parallel:8", "cache_reuse:256"])
def test_what_changes_nothing_here_is_logged(caplog, pair: str) -> None:
    with caplog.at_level(logging.INFO):
        assert with_options(BARE, [pair], "") == BARE
    assert pair.partition(":")[0] in caplog.text
