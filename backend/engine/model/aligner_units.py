"""Splits a transcript into the units that the forced aligner was trained on: bare words, and single Chinese characters.

The units are exactly the package's, because the aligner knows no others. For Japanese and Korean the package's text
processor splits the text; it takes seconds to import (DyNet, soynlp), so the first such text imports it. Its word
tokenizers drop text at times: nagisa loses the end of some Japanese texts (QwenLM/Qwen3-ASR issue 38), and the units
before the loss would then be stretched over all of the audio. What was dropped is put back, character by character.
"""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import torch

from backend.languages import NAMES

_log = logging.getLogger(__name__)

# CJK Unified Ideographs, extensions A to E, and compatibility ideographs: the package's table
_CHINESE = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F), (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
)  # fmt: skip


class UnitSplitter:
    """Texts -> units. One thread at a time: the package's tokenizers keep state."""

    @cached_property
    def _processor(self) -> Any:
        from qwen_asr.inference.qwen3_forced_aligner import Qwen3ForceAlignProcessor

        torch.set_flush_denormal(False)  # importing DyNet switches denormal floats off for the calling thread
        return Qwen3ForceAlignProcessor()

    def split(self, text: str, language: str) -> list[str]:
        """The units of `text`; none for punctuation alone. `language`: the code of a language the aligner knows."""
        if language not in ("ja", "ko"):
            return list(split_on_spaces(text))
        units: list[str] = self._processor.encode_timestamp(text, NAMES[language])[0]
        restored = restore_dropped(text, units, is_unit_character)
        if len(restored) != len(units):
            _log.info("the tokenizer lost a part of a text; %d units instead of %d", len(restored), len(units))
        return restored


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
