"""Units are found in the transcript, however many of them are foreign, lost or doubled."""

from __future__ import annotations

import random
import time

import pytest
from units import evenly

from backend.transcript.words import place


def test_a_foreign_or_doubled_unit_moves_no_other_word() -> None:
    text = "the cat sat on the mat and the dog"
    units = evenly(text.split())
    words = place(text, [("xyz", 0, 0), units[0], ("the", 0.6, 0.7), *units[1:]], start_s=0, end_s=10)
    assert [(word.start_s, word.end_s) for word in words] == [(start, end) for _, start, end in units]


def test_a_short_unit_is_not_mistaken_for_the_beginning_of_a_longer_word() -> None:
    text = "We are a team"
    words = place(text, [("We", 0.0, 0.5), ("a", 2.0, 2.5), ("team", 3.0, 3.5)], start_s=0, end_s=4)
    assert [word.start_s for word in words] == [0.0, 0.5, 2.0, 3.0]


def test_units_are_found_under_compatibility_case_and_lost_marks() -> None:
    units = evenly(["straße", "fine", "x2", "nave", "नमसत", "10", "ΣΟΦΟΣ"])
    words = place("STRASSE ﬁne x² na\u0308ve नमस्ते １０ σοφός", units, start_s=0, end_s=9)
    assert [(word.start_s, word.end_s) for word in words] == [(start, end) for _, start, end in units]


def test_a_common_word_inside_a_lost_stretch_does_not_take_the_time_of_a_later_one() -> None:
    names = [f"w{at}" for at in range(150)]
    names[8] = names[100] = "the"
    units = evenly(names)
    words = place(" ".join(names), units[:2] + units[100:], start_s=0, end_s=200)
    assert words[8].end_s < 20
    assert words[100].start_s == 100


def test_a_unit_that_lacks_letters_is_still_found() -> None:
    words = place("a Křečkovice b", [("a", 0.0, 0.5), ("Kečovice", 1.0, 1.5), ("b", 2.0, 2.5)], start_s=0, end_s=3)
    assert words[1].start_s == 1.0


def test_a_long_stretch_without_units_does_not_lose_what_follows() -> None:
    names = [f"w{at}" for at in range(200)]
    units = evenly(names)
    words = place(" ".join(names), units[:50] + units[150:], start_s=0, end_s=200)
    assert [word.start_s for word in words[150:]] == [float(at) for at in range(150, 200)]


def test_times_of_most_words_survive_an_aligner_that_errs_in_one_unit_of_five() -> None:
    rng = random.Random(7)
    vocabulary = [
        "the",
        "a",
        "of",
        "cat",
        "house",
        "running",
        "is",
        "it",
        "Berlin",
        "very",
        "old",
        "we",
        "never",
        "there",
    ]
    names = [rng.choice(vocabulary) for _ in range(2000)]
    units = evenly(names)
    kept = [unit for unit in units if rng.random() > 0.1]
    sent = [(rng.choice(names), *unit[1:]) if rng.random() < 0.1 else unit for unit in kept]
    words = place(" ".join(names), sent, start_s=0, end_s=2000)
    right = sum(word.start_s == unit[1] for word, unit in zip(words, units, strict=True))
    assert right > 0.9 * sum(sent_unit == unit for sent_unit, unit in zip(sent, kept, strict=True))


@pytest.mark.parametrize("units", ["same", "foreign", "shuffled"])
def test_two_thousand_words_take_well_under_a_second(units) -> None:
    names = [f"w{at}" for at in range(2000)]
    sent = {"same": names, "foreign": ["w"] * 2000, "shuffled": random.Random(1).sample(names, 2000)}[units]
    began = time.process_time()
    assert len(place(" ".join(names), evenly(sent), start_s=0, end_s=2000)) == 2000
    assert time.process_time() - began < 1.5


@pytest.mark.parametrize(
    ("text", "units"), [("№5 open", "5 open"), ("㈜삼성 전자", "삼성 전자"), ("℡555 call", "555 call")]
)
def test_a_sign_that_is_written_with_letters_does_not_cost_its_word_the_time(text: str, units: str) -> None:
    words = place(text, evenly(units.split()), start_s=0, end_s=3)
    assert [(word.start_s, word.end_s) for word in words] == [(0, 0.5), (1, 1.5)]
