"""Units are the package's, and hold the whole text, whatever the word tokenizers drop."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.engine.model.aligner_units import UnitSplitter, restore_dropped
from backend.errors import AlignerUnavailable

JAPANESE = "昨日、東京タワーに行きました。とても楽しかったです！ラーメンも食べた"


@pytest.fixture(scope="module")
def splitter() -> UnitSplitter:
    return UnitSplitter()


@pytest.fixture(scope="module")
def package() -> Any:
    """The package's own text processor."""
    from qwen_asr.inference.qwen3_forced_aligner import Qwen3ForceAlignProcessor

    return Qwen3ForceAlignProcessor()


@pytest.mark.parametrize(
    ("units", "whole"),
    [
        (["今日", "は", "晴れ", "です"], ["今日", "は", "晴れ", "です"]),
        (["今日", "は"], ["今日", "は", "晴", "れ", "で", "す"]),  # a lost tail
        (["は", "です"], ["今", "日", "は", "晴", "れ", "です"]),  # a lost head and middle
        (["今日", "x", "です"], ["今日", "は", "晴", "れ", "です"]),  # a unit that is not in the text
        ([], ["今", "日", "は", "晴", "れ", "で", "す"]),
    ],
)
def test_dropped_characters_are_restored_in_their_places(units: list[str], whole: list[str]) -> None:
    assert restore_dropped("今日は、晴れです。", units, str.isalnum) == whole


@settings(max_examples=200)
@given(
    st.text("あいカキ日本a。 ", max_size=30), st.lists(st.text("あいカキ日本a", min_size=1, max_size=3), max_size=12)
)
def test_restored_units_are_the_texts_letters_in_order(text: str, units: list[str]) -> None:
    assert "".join(restore_dropped(text, units, str.isalnum)) == "".join(filter(str.isalnum, text))


@pytest.mark.parametrize("text", [JAPANESE, "テスト" * 40 + "です。", "ABCを食べた。"])
def test_japanese_units_hold_the_whole_text(splitter, text: str) -> None:
    units = splitter.split(text, "ja")
    assert "".join(units) == "".join(filter(str.isalnum, text))
    assert len(units) < len(text)  # words, not only characters


def test_japanese_units_are_the_packages(splitter, package) -> None:
    assert splitter.split(JAPANESE, "ja") == package.tokenize_japanese(JAPANESE)


def test_a_tail_that_nagisa_drops_is_there(splitter, monkeypatch) -> None:
    whole = splitter._split_japanese(JAPANESE)
    monkeypatch.setattr(splitter, "_split_japanese", lambda text: whole[:4])
    units = splitter.split(JAPANESE, "ja")
    assert "".join(units).startswith("".join(filter(str.isalnum, "".join(whole[:4]))))
    assert "".join(units) == "".join(filter(str.isalnum, JAPANESE))


def test_without_nagisa_the_refusal_names_it_and_other_languages_go_on(monkeypatch, caplog) -> None:
    monkeypatch.setitem(sys.modules, "nagisa", None)
    lean = UnitSplitter()
    for _ in range(2):
        with pytest.raises(AlignerUnavailable, match="Japanese needs the package nagisa"):
            lean.split(JAPANESE, "ja")
    assert caplog.text.count("nagisa cannot be imported") == 1
    assert lean.split("Don't stop", "en") == ["Don't", "stop"]
    assert lean.split("산책을", "ko") == ["산책", "을"]


@pytest.mark.parametrize(
    ("text", "language", "units"),
    [
        ("Don't stop, Zoë!", "en", ["Don't", "stop", "Zoë"]),
        ("我有3个iPhone。", "zh", ["我", "有", "3", "个", "iPhone"]),
        ("...!", "en", []),
    ],
)
def test_units_are_the_packages(splitter, text: str, language: str, units: list[str]) -> None:
    assert splitter.split(text, language) == units


@settings(max_examples=300)
@given(st.text(st.sampled_from("abcÄé1٣'’-.,!? \u3000\n中文字𠀀豈あ한สวัส\u0301नमस्ते"), max_size=30))
def test_units_of_spaced_languages_are_exactly_the_packages(splitter, package, text: str) -> None:
    for language in ("en", "zh", "ru"):
        assert splitter.split(text, language) == package.tokenize_space_lang(text)


@settings(max_examples=200)
@given(st.text("오늘은날씨가정말좋네요산책을 .,'a1中\n", max_size=30))
def test_korean_units_are_exactly_the_packages(splitter, package, text: str) -> None:
    assert splitter.split(text, "ko") == package.encode_timestamp(text, "Korean")[0]
