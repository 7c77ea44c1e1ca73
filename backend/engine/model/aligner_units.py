"""Splits a transcript into the units that the forced aligner was trained on: bare words, and single Chinese characters.

The units are exactly those of Qwen's package, because the aligner knows no others. Korean is cut by the dictionary that
lies in the package qwen-asr; nothing of that package is imported. Japanese is cut by nagisa, which takes seconds to
import (DyNet), so the first Japanese text imports it. It loses the end of some texts (QwenLM/Qwen3-ASR issue 38), and
the units before the loss would then be stretched over all of the audio. What was dropped is put back, character by
character.
"""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import torch

from backend.errors import AlignerUnavailable

_log = logging.getLogger(__name__)

_KOREAN_PACKAGE, _KOREAN_WORDS = "qwen-asr", "qwen_asr/inference/assets/korean_dict_jieba.dict"
_KOREAN_MIN_CHARS = 2  # of the beginning of a word

# CJK Unified Ideographs, extensions A to E, and compatibility ideographs: the package's table
_CHINESE = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F), (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
)  # fmt: skip


class UnitSplitter:
    """Texts -> units. One thread at a time: nagisa has one computation graph in a process."""

    def split(self, text: str, language: str) -> list[str]:
        """The units of `text`; none for punctuation alone. `language`: the code of a language the aligner knows.

        Raises AlignerUnavailable where what a language needs is not installed.
        """
        if language not in ("ja", "ko"):
            return list(split_on_spaces(text))
        words = self._split_japanese(text) if language == "ja" else split_korean(text, self._korean_words)
        units = [unit for word in words if (unit := "".join(filter(is_unit_character, word)))]
        restored = restore_dropped(text, units, is_unit_character)
        if len(restored) != len(units):
            _log.info("the tokenizer lost a part of a text; %d units instead of %d", len(restored), len(units))
        return restored

    def _split_japanese(self, text: str) -> list[str]:
        if self._tag_japanese is None:
            raise AlignerUnavailable(
                "the aligner's Japanese needs the package nagisa, which cannot be imported here (pip install nagisa)"
            )
        words: list[str] = self._tag_japanese(text).words
        return words

    @cached_property
    def _tag_japanese(self) -> Callable[[str], Any] | None:
        """nagisa's; None where it cannot be imported, which is tried once."""
        try:
            from nagisa import tagging
        except Exception:  # noqa: BLE001 - foreign code: libraries in C++ that do not fit the machine raise anything
            _log.warning("nagisa cannot be imported", exc_info=True)
            return None
        finally:
            torch.set_flush_denormal(False)  # importing DyNet switches denormal floats off for the calling thread
        return tagging  # type: ignore[no-any-return]

    @cached_property
    def _korean_words(self) -> frozenset[str]:
        """The first column of the package's dictionary."""
        try:
            path = Path(str(distribution(_KOREAN_PACKAGE).locate_file(_KOREAN_WORDS)))
            lines = path.read_text(encoding="utf-8").split("\n")
        except (PackageNotFoundError, OSError, ValueError) as error:
            raise AlignerUnavailable(
                "the aligner's Korean needs the dictionary of the package qwen-asr, which is not here "
                "(pip install --no-deps qwen-asr)"
            ) from error
        return frozenset(line.split()[0] for line in lines if line.strip())


def split_korean(text: str, words: frozenset[str]) -> Iterator[str]:
    """Each word between spaces in two parts: the longest beginning that is one of `words`, and its ending.

    A beginning has at least 2 characters. A word without one stays whole. This is what soynlp's LTokenizer does with
    the same score for all words, as Qwen's package calls it.
    """
    for word in text.split():
        ends = range(len(word), _KOREAN_MIN_CHARS - 1, -1)
        end = next((end for end in ends if word[:end] in words), len(word))
        yield word[:end]
        if end < len(word):
            yield word[end:]


def split_on_spaces(text: str) -> Iterator[str]:
    """Words between spaces without their punctuation; each Chinese character is a unit of its own."""
    for word in text.split():
        unit = ""
        for char in filter(is_unit_character, word):
            if not _is_chinese(char):
                unit += char
                continue
            if unit:
                yield unit
            yield char
            unit = ""
        if unit:
            yield unit


def restore_dropped(text: str, units: Sequence[str], is_unit_character: Callable[[str], bool]) -> list[str]:
    """`units` of `text` with the characters that they lack, each as a unit in its place.

    `is_unit_character`: which characters of the text belong into units. A unit that does not occur in the text, at this
    place or later, is dropped.
    """
    restored: list[str] = []
    expected = "".join(filter(is_unit_character, text))
    cursor = 0
    for unit in units:
        at = expected.find(unit, cursor)
        if at < 0:
            continue
        restored += _characters(expected[cursor:at])
        restored.append(unit)
        cursor = at + len(unit)
    return restored + _characters(expected[cursor:])


def is_unit_character(char: str) -> bool:
    """Whether a unit may hold this character: a letter, a digit or an apostrophe."""
    return char == "'" or unicodedata.category(char)[0] in "LN"


def _characters(text: Iterable[str]) -> list[str]:
    """Single characters, each with its combining marks."""
    characters: list[str] = []
    for char in text:
        if characters and unicodedata.combining(char):
            characters[-1] += char
        else:
            characters.append(char)
    return characters


def _is_chinese(char: str) -> bool:
    return any(first <= ord(char) <= last for first, last in _CHINESE)
