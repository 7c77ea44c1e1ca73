"""Ends of sentences in the eleven languages of the aligner: sentences.txt has the texts, with the right cuts."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.languages import ALIGNABLE
from backend.transcript.segments import SegmentRules, merge
from backend.transcript.words import Word, spread

LINES = [
    line.split("\t")
    for line in (Path(__file__).parent / "sentences.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]


def sentences(text: str, *languages: tuple[int, str]) -> list[str]:
    """The segments of `text`, whose words are evenly spaced, so that no gap cuts."""
    words = [
        Word(word.begin, word.end, 0.25 * number, 0.25 * number + 0.2)
        for number, word in enumerate(spread(text, [(0, 1000)]))
    ]
    return [text[segment.begin : segment.end] for segment in merge(text, words, SegmentRules(), languages)]


@pytest.mark.parametrize(("language", "marked"), LINES, ids=[marked for _, marked in LINES])
def test_a_text_is_cut_at_the_ends_of_its_sentences(language: str, marked: str) -> None:
    code, parts = language.rstrip("*"), marked.split("|")
    text = ("" if code in {"zh", "yue", "ja"} else " ").join(parts)
    assert sentences(text, (0, code)) == parts
    if not language.endswith("*"):
        assert sentences(text) == parts


def test_every_language_of_the_aligner_has_texts() -> None:
    assert {language.rstrip("*") for language, _ in LINES} == ALIGNABLE


def test_each_passage_has_the_rules_of_its_language() -> None:
    english, spanish = "See no. 5 now.", "¿Vienes? No. 5 minutos."
    text = f"{english} {spanish} {english}"
    at = len(english) + 1
    languages = (0, "en"), (at, "es"), (at + len(spanish) + 1, "en")
    assert sentences(text, *languages) == [english, "¿Vienes?", "No.", "5 minutos.", english]


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("I met him at last. Peter came.", "en"),
        ("She works in HR. Peter works in IT.", "de"),
        ("Ich helfe dir. Peter hilft mir.", "de"),
        ("Das ist alles, was ich mag. Peter nicht.", "de"),
        ("Il a raté son vol. Paul aussi.", "fr"),
        ("Così si fa. Marco lo sa.", "it"),
        ("Я помог им. Иван тоже.", "ru"),
        ("Vi o mar. Pedro nadou.", "pt"),
        ("Ya no sé. Pedro sí.", "es"),
    ],
)
def test_a_word_that_looks_like_an_abbreviation_ends_its_sentence(text: str, language: str) -> None:
    assert len(sentences(text, (0, language))) == 2


def test_a_full_stop_behind_bare_punctuation_is_no_error() -> None:
    assert sentences("Hi. (. There.") == ["Hi. (.", "There."]
