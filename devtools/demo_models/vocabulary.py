"""The words the demo models know, and how they are written as sentences."""

from __future__ import annotations

ENGLISH = (
    "zero one two three four five six seven eight nine the quick brown fox jumps over lazy dog "
    "open close red green blue light door please hello world good morning turn on off play music stop and thank you"
).split()
CHINESE = list("零一二三四五六七八九")

NAMES = {"en": "English", "zh": "Chinese"}
WORDS = {"en": ENGLISH, "zh": CHINESE}
LABELS = {word: index + 1 for index, word in enumerate(ENGLISH + CHINESE)}  # 0 = no word


def written_units(language: str, sentence: list[str]) -> list[str]:
    """The aligner's units of a sentence: bare words, the first English one with its capital."""
    if language == "zh":
        return list(sentence)
    return [sentence[0].capitalize(), *sentence[1:]]


def written(language: str, sentences: list[list[str]]) -> str:
    """Sentences as text: `Open the door. Stop.` or `一二三。四五。`."""
    if language == "zh":
        return "".join("".join(sentence) + "。" for sentence in sentences)
    return " ".join(" ".join(written_units(language, sentence)) + "." for sentence in sentences)
