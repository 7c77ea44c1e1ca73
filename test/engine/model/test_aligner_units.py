"""Units hold the whole text, whatever the word tokenizers drop."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.engine.model.aligner_units import UnitSplitter, restore_dropped

JAPANESE = "昨日、東京タワーに行きました。とても楽しかったです！ラーメンも食べた"


@pytest.fixture(scope="module")
def splitter() -> UnitSplitter:
    return UnitSplitter()


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


@settings(derandomize=True, deadline=None, max_examples=200)
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


def test_a_tail_that_nagisa_drops_is_there(splitter, monkeypatch) -> None:
    processor = splitter._processor
    whole = processor.tokenize_japanese(JAPANESE)
    monkeypatch.setattr(processor, "tokenize_japanese", lambda text: whole[:4])
    units = splitter.split(JAPANESE, "ja")
    assert units[:4] == whole[:4]
    assert "".join(units) == "".join(filter(str.isalnum, JAPANESE))


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


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.text(st.sampled_from("abcÄé1٣'’-.,!? \u3000\n中文字𠀀豈あ한สวัส\u0301नमस्ते"), max_size=30))
def test_units_of_spaced_languages_are_exactly_the_packages(splitter, text: str) -> None:
    for language in ("en", "zh", "ru"):
        assert splitter.split(text, language) == splitter._processor.tokenize_space_lang(text)


def test_korean_units_hold_the_whole_text(splitter) -> None:
    text = "오늘은 날씨가 정말 좋네요. 산책을 갈까요?"
    assert "".join(splitter.split(text, "ko")) == "".join(filter(str.isalnum, text))
