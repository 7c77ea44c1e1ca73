"""A transcript as the units that the forced aligner was trained on: bare words, Chinese characters one by one.

The package's own text processor splits, because the aligner knows its units. What it loses is put back: nagisa drops
the end of some Japanese texts (QwenLM/Qwen3-ASR issue 38), and a text without its end would be squeezed over all of
the sound. What was lost is given character by character, as Japanese is written.
"""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

from qwen_asr.inference.qwen3_forced_aligner import Qwen3ForceAlignProcessor

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


class UnitSplitter:
    """Texts -> units. One thread at a time: the package's tokenizers keep state."""

    @cached_property
    def _processor(self) -> Qwen3ForceAlignProcessor:
        return Qwen3ForceAlignProcessor()

    def split(self, text: str, language: str) -> list[str]:
        """The units of `text` in a language that the aligner knows, given by its code; none for bare punctuation."""
        units: list[str] = self._processor.encode_timestamp(text, NAMES[language])[0]
        if language != "ja":  # the others are split character by character in the package: nothing is lost
            return units
        whole = restored(text, units, self._processor.is_kept_char)
        if len(whole) != len(units):
            _log.info("nagisa lost a part of a Japanese text; %d units instead of %d", len(whole), len(units))
        return whole
