from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import InvalidOption, LoadRefused
from backend.options.load_options import LoadOptions
from backend.options.option_parser import with_options
from backend.options.option_table import OPTIONS
from backend.options.option_values import quantization_of

BARE = LoadOptions(model="m")
ROOT = Path(__file__).parent.parent

# For every option: valid texts with their parsed values, and invalid texts.
EXAMPLES: dict[str, tuple[dict[str, object], list[str]]] = {
    "forced_aligner": ({"C:/models/aligner": "C:/models/aligner", "Qwen/Q": "Qwen/Q"}, []),  # any text is a name
    "revision": (
        {"main": "main", "v1.0": "v1.0", "refs/pr/7": "refs/pr/7", "0" * 40: "0" * 40},
        ["", "../up", "a b", "/main", "main/", "é", "x" * 201],
    ),
    "forced_aligner_revision": ({"main": "main"}, ["", "a..b"]),
    "task": ({"align": "align", "Transcribe": "transcribe"}, ["", "translate", "aligned"]),
    "device": (
        {"auto": "auto", "cpu": "cpu", "CUDA": "cuda", "mps": "mps", "xpu": "xpu"},
        ["", "cuda:1", "rocm", "gpu"],
    ),
    "torch_dtype": ({"bf16": "bfloat16", "FP16": "float16", "float": "float32", "auto": "auto"}, ["int8", "fp8"]),
    "attn_implementation": ({"sdpa": "sdpa", "on": "flash_attention_2", "Eager": "eager"}, ["kernels-community/evil"]),
    "batch_max_size": ({"1": 1, "+4": 4, "256": 256, "-1": None}, ["0", "257", "-2", "1.5", "", "all"]),
    "max_inference_batch_size": ({"3": 3, "-1": None}, ["0", "257", "nan"]),
    "batch_max_wait_ms": ({"0": 0.0, "250": 0.25, "10000": 10.0}, ["-1", "10001", "0.5", "1s"]),
    "cuda_graphs": ({"on": True, "off": False, "NO": False, "1": True}, ["", "maybe", "2"]),
    "max_new_tokens": ({"1": 1, "8192": 8192}, ["0", "-5", "8193", "1e3", "nan", "９９９９９９９９９９９９９９"]),
    "max_chunk_seconds": ({"2": 2.0, "45.5": 45.5, "180": 180.0}, ["1.9", "181", "nan", "15s"]),
    "max_audio_seconds": ({"1": 1.0, "86400": 86400.0}, ["0.5", "86401", "inf"]),
    "max_audio_memory_mb": ({"16": 16, "16000000": 16_000_000}, ["0", "15", "1.5", "1g", "-1"]),
    "aligner_retry_seconds": ({"0": 0.0, "86400": 86400.0}, ["-1", "86401", "nan"]),
    "segment_gap_threshold": ({"0.01": 0.01, "3600": 3600.0}, ["0", "-1", "3601", "nan", "inf"]),
    "max_segment_seconds": ({"0.5": 0.5, "7": 7.0}, ["0.4", "3601", "off"]),
    "subtitles": ({"on": True, "off": False}, ["srt", "2"]),
    "subtitle_line_chars": ({"10": 10, "42": 42}, ["9", "201", "x"]),
    "subtitle_wide_line_chars": ({"16": 16, "20": 20}, ["4", "101"]),
    "subtitle_lines": ({"1": 1, "2": 2}, ["0", "3"]),
    "subtitle_min_seconds": ({"0.84": 0.84, "0": 0}, ["-1", "nan"]),
    "subtitle_max_seconds": ({"7": 7, "5.5": 5.5}, ["0", "61"]),
    "subtitle_max_chars_per_second": ({"17": 17, "20": 20}, ["4", "inf"]),
    "subtitle_gap_seconds": ({"0": 0, "0.08": 0.08}, ["-0.1", "2"]),
    "aligner_idle_seconds": ({"0": 0, "300": 300}, ["0.5", "-1", "604801", "soon"]),
    "idle_unload_seconds": ({"0": 0, "900.5": 900.5}, ["0.5", "nan"]),
    "idle_exit_seconds": ({"0": 0, "60": 60}, ["59", "inf"]),
    "max_segment_chars": ({"1": 1, "84": 84, "10000": 10_000}, ["0", "10001", "1.0"]),
    "engine_url": (
        {
            "http://gpu1:8000": ("http://gpu1:8000",),
            "https://a.example/asr/v1/": ("https://a.example/asr",),
            "http://[::1]:8000, http://10.0.0.2:8001/v1": ("http://[::1]:8000", "http://10.0.0.2:8001"),
        },
        [
            "",
            ",",
            "gpu1:8000",
            "ftp://gpu1",
            "http://",
            "http://gpu1:0",
            "http://gpu1:99999",
            "http://user:pass@gpu1",
            "http://gpu1/?key=1",
            "http://gpu1/#",
            "http://[::1",
            "http://a b",
            "http://a\r\nX: 1",
        ],
    ),
    "engine_model": ({"Qwen/Qwen3-ASR-1.7B": "Qwen/Qwen3-ASR-1.7B"}, []),
    "engine_api_key_env": ({"VLLM_API_KEY": "VLLM_API_KEY"}, ["", "$VLLM_API_KEY", "sk-123", "A=B", "1A"]),
    "engine_api_key_file": ({"/run/secrets/key": "/run/secrets/key"}, ["", "key", "./key", "/run/\0"]),
    "engine_concurrency": ({"1": 1, "256": 256}, ["0", "257", "1.5", ""]),
    "engine_timeout_seconds": ({"1": 1.0, "600": 600.0}, ["0", "601", "nan", "1m"]),
    "vad": ({"on": True, "Off": False, "TRUE": True, "0": False}, ["maybe", ""]),
    "vad_threshold": ({"0.05": 0.05, "0.95": 0.95}, ["0", "0.04", "1", "nan"]),
    "vad_min_speech_seconds": ({"0": 0.0, "5": 5.0}, ["-0.1", "5.1", "nan"]),
    "vad_min_silence_seconds": ({"0": 0.0, "5": 5.0}, ["-0.1", "5.1", "nan"]),
    "vad_margin_seconds": ({"0": 0.0, "5": 5.0}, ["-0.1", "5.1", "nan"]),
    "live_step_seconds": ({"0.25": 0.25, "5": 5.0}, ["0.2", "5.1", "nan", ""]),
    "live_endpoint_seconds": ({"0.3": 0.3, "3": 3.0}, ["0.29", "3.1", "inf"]),
    "live_hold_words": ({"0": 0, "10": 10}, ["-1", "11", "1.5"]),
    "live_quiet_seconds": ({"1": 1.0, "3600": 3600.0}, ["0.9", "3601", "nan"]),
    "live_max_streams": ({"1": 1, "1000": 1000}, ["0", "1001", "-1"]),
    "live_eou": ({"sentence": "sentence", "Pause": "pause", "off": "off"}, ["", "on", "always"]),
    "live_words": ({"on": True, "off": False}, ["", "word"]),
}


def test_every_option_has_examples() -> None:
    assert set(EXAMPLES) == set(OPTIONS)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [(name, text, value) for name, (valid, _) in EXAMPLES.items() for text, value in valid.items()],
)
def test_a_valid_value_is_parsed(name: str, text: str, value: object) -> None:
    options = with_options(BARE, [f"{name}:{text}"], "")
    assert getattr(options, OPTIONS[name].field) == value
    assert with_options(BARE, [], json.dumps({name: text})) == options


@pytest.mark.parametrize(
    ("name", "text"), [(name, text) for name, (_, invalid) in EXAMPLES.items() for text in invalid]
)
def test_an_invalid_value_is_refused_with_the_options_name(name: str, text: str) -> None:
    with pytest.raises(InvalidOption, match=name):
        with_options(BARE, [f"{name}:{text}"], "")


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_has_its_row_in_the_documentation(name: str) -> None:
    option = OPTIONS[name]
    row = f"| `{name}` | {option.default} | {option.values.allowed} | {option.meaning} |"
    assert row in (ROOT / "docs/options.md").read_text().splitlines()


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_is_mentioned_in_the_changelog(name: str) -> None:
    assert f"`{name}`" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("name", OPTIONS)
def test_a_documented_default_is_the_default(name: str) -> None:
    option = OPTIONS[name]
    default = getattr(BARE, option.field)
    if default in (None, "", ()):  # the backend chooses; the documentation says how
        assert option.default in (
            "none", "off", "the one it serves", "by length", "by device", "by checkpoint", "max(4 × median gap, 0.3)",
            "half of the memory",
        )  # fmt: skip
    else:
        assert option.values.parse(name, option.default) == default


def test_every_option_sets_its_field() -> None:
    pairs = [
        "forced_aligner:C:/models/aligner", "torch_dtype:bf16", "attn_implementation:sdpa", "batch_max_size:4",
        "batch_max_wait_ms:250", "max_new_tokens:256", "max_chunk_seconds:45.5", "max_audio_seconds:60",
        "aligner_retry_seconds:0", "segment_gap_threshold:0.7", "max_segment_seconds:7", "max_segment_chars:84",
        "cuda_graphs:off", "device:cpu", "max_audio_memory_mb:500",
    ]  # fmt: skip
    assert with_options(BARE, pairs, "") == LoadOptions(
        model="m", forced_aligner="C:/models/aligner", dtype="bfloat16", attention="sdpa", batch_max_size=4,
        batch_wait_s=0.25, max_new_tokens=256, max_chunk_s=45.5, max_audio_s=60, aligner_retry_s=0, segment_gap_s=0.7,
        max_segment_s=7, max_segment_chars=84, cuda_graphs=False, device="cpu",
        max_audio_memory_mb=500,
    )  # fmt: skip


def test_several_servers_are_one_option_each_or_one_with_commas() -> None:
    assert with_options(BARE, ["engine_url:http://a:1", "engine_url:http://b:2,http://c"], "").engine_urls == (
        "http://a:1", "http://b:2", "http://c",
    )  # fmt: skip
    both = with_options(BARE, ["engine_url:http://a:1"], '{"engine_url": "http://b:2"}')
    assert both.engine_urls == ("http://b:2",)


@pytest.mark.parametrize(
    ("pairs", "problem"),
    [
        (["engine_url:http://a", "engine_url:http://a/v1"], "each server once"),
        ([f"engine_url:{','.join(f'http://a:{port}' for port in range(1, 66))}"], "64"),
        ([f"engine_url:http://a:{port}" for port in range(1, 66)], "64"),
        (["engine_url:http://a,http://b,http://c,http://d,http://e", "engine_concurrency:256"], "at most 1024"),
        (["engine_api_key_env:A", "engine_api_key_file:/a"], "two keys"),
    ],
)
def test_options_of_servers_that_contradict_each_other_are_refused(pairs: list[str], problem: str) -> None:
    with pytest.raises(InvalidOption, match=problem):
        with_options(BARE, pairs, "")


def test_a_password_in_a_url_is_not_repeated() -> None:
    with pytest.raises(InvalidOption) as caught:
        with_options(BARE, ["engine_url:http://user:hunter2@gpu1"], "")
    assert "hunter2" not in str(caught.value)


def test_options_of_servers_without_servers_are_logged(caplog) -> None:
    with_options(BARE, ["engine_concurrency:4"], "")
    assert "need engine_url" in caplog.text


def test_the_batch_size_has_two_names() -> None:
    assert with_options(BARE, ["max_inference_batch_size: 3 "], "").batch_max_size == 3


@pytest.mark.parametrize("spelling", ["fp16", "half", "float16", "FP16"])
def test_a_dtype_has_several_spellings(spelling: str) -> None:
    assert with_options(BARE, [f"torch_dtype:{spelling}"], "").dtype == "float16"


def test_engine_args_have_the_same_options_in_json_and_win() -> None:
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


def test_an_unknown_option_lists_the_known_ones_unless_one_is_meant() -> None:
    with pytest.raises(InvalidOption) as caught:
        with_options(BARE, ["temperatur:5"], "")
    assert "temperatur" in str(caught.value)
    assert all(name in str(caught.value) for name in OPTIONS)
    with pytest.raises(
        InvalidOption, match=r"'max_tokens' is not known; did you mean max_new_tokens\? docs/options.md has all$"
    ):
        with_options(BARE, ["max_tokens:5"], "")


def test_switches_have_several_spellings() -> None:
    assert BARE.vad
    assert not with_options(BARE, ["vad:off"], "").vad
    assert not with_options(BARE, [], '{"vad": false}').vad
    assert with_options(BARE, ["vad:Off", "vad:TRUE"], "").vad
    with pytest.raises(InvalidOption, match="one of on, true"):
        with_options(BARE, ["vad:maybe"], "")


@pytest.mark.parametrize("arguments", ["[]", "{", '"x"', '{"unknown": 1}', '{"max_new_tokens": true}', '{"a": {}}'])
def test_malformed_engine_args_are_refused(arguments: str) -> None:
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


@settings(max_examples=300)
@given(st.sampled_from([*OPTIONS, "EngineArgs", "Quantization"]) | NASTY, NASTY, st.booleans())
def test_every_bad_option_is_an_invalid_option_with_a_harmless_text(name: str, value: str, as_json: bool) -> None:
    try:
        with_options(BARE, [] if as_json else [f"{name}:{value}"], json.dumps({name: value}) if as_json else "")
        with_options(BARE, [name], value)
        quantization_of(value)
    except InvalidOption as error:
        said = str(error)
        assert len(said) < 2000  # a status travels in HTTP/2 headers of 16 KiB
        assert said.isprintable()
        for harmful in ("connection refused", "connection reset", "no such host", "model not loaded", "unavailable"):
            assert harmful not in said.lower()


@pytest.mark.parametrize("pair", ["max_inference_batch_size:-1", "batch_max_size:-1", "parallel:8", "cache_reuse:256"])
def test_an_option_without_effect_is_logged(caplog, pair: str) -> None:
    with caplog.at_level(logging.INFO):
        assert with_options(BARE, [pair], "") == BARE
    assert pair.partition(":")[0] in caplog.text
