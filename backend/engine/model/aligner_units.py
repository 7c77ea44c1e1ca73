"""A transcript as the units that the forced aligner was trained on: bare words, Chinese characters one by one.

The units are the package's, because the aligner knows no others; for Japanese and Korean its own text processor splits
them, which takes seconds to import (DyNet, soynlp) and is imported when such a text comes. What it loses is put back:
nagisa drops the end of some Japanese texts (QwenLM/Qwen3-ASR issue 38), and a text without its end would be squeezed
over all of the sound. What was lost is given character by character, as Japanese is written.
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


def restored(text: str, units: Sequence[str], is_kept: Callable[[str], bool]) -> list[str]:
    """`units` of `text`, and in their places what of the text they lack, one unit for each character.

    `is_kept`: which characters a unit may hold. A unit that the text does not have in this place is dropped: the text
    decides.
    """
    found: list[str] = []
    kept = "".join(filter(is_kept, text))
    cursor = 0
    for unit in units:
        at = kept.find(unit, cursor)
        if at < 0:
            continue
        found += _characters(kept[cursor:at])
        found.append(unit)
        cursor = at + len(unit)
    return found + _characters(kept[cursor:])


def _characters(text: Iterable[str]) -> list[str]:
    """Characters, with the marks that belong to them."""
    found: list[str] = []
    for char in text:
        if found and unicodedata.combining(char):
            found[-1] += char
        else:
            found.append(char)
    return found


def is_kept(char: str) -> bool:
    """Whether a unit may hold this character: a letter, a digit or an apostrophe."""
    return char == "'" or unicodedata.category(char)[0] in "LN"


def _is_chinese(char: str) -> bool:
    return any(first <= ord(char) <= last for first, last in _CHINESE)


# CJK Unified Ideographs, extensions A to E, and compatibility ideographs: the package's table
_CHINESE = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F), (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
)  # fmt: skip


def spaced(text: str) -> Iterator[str]:
    """Words between spaces without their punctuation, Chinese characters one by one."""
    for word in text.split():
        unit = ""
        for char in filter(is_kept, word):
            if not _is_chinese(char):
                unit += char
                continue
            if unit:
                yield unit
            yield char
            unit = ""
        if unit:
            yield unit


class UnitSplitter:
    """Texts -> units. One thread at a time: the package's tokenizers keep state."""

    @cached_property
    def _processor(self) -> Any:
        from qwen_asr.inference.qwen3_forced_aligner import Qwen3ForceAlignProcessor

        torch.set_flush_denormal(False)  # DyNet switches denormal floats off for the thread that imports it
        return Qwen3ForceAlignProcessor()

    def split(self, text: str, language: str) -> list[str]:
        """The units of `text` in a language that the aligner knows, given by its code; none for bare punctuation."""
        if language not in ("ja", "ko"):
            return list(spaced(text))
        units: list[str] = self._processor.encode_timestamp(text, NAMES[language])[0]
        whole = restored(text, units, is_kept)
        if len(whole) != len(units):
            _log.info("the tokenizer lost a part of a text; %d units instead of %d", len(whole), len(units))
        return whole
