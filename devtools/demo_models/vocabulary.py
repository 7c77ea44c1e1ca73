"""The words that the demo models know."""

from __future__ import annotations

ENGLISH = (
    "zero one two three four five six seven eight nine the quick brown fox jumps over lazy dog "
    "open close red green blue light door please hello world good morning turn on off play music stop and thank you"
).split()
CHINESE = list("零一二三四五六七八九")

NAMES = {"en": "English", "zh": "Chinese"}
WORDS = {"en": ENGLISH, "zh": CHINESE}
LABELS = {word: index + 1 for index, word in enumerate(ENGLISH + CHINESE)}  # 0 = no word
