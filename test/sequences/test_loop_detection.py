"""Loops are detected soon after they start, and what people say is no loop."""

from __future__ import annotations

import random

import pytest

from backend.sequences.loop_detection import WINDOW_TOKENS, loops, repetition_start
from backend.thresholds import MAX_LOOP_PHRASE_TOKENS, MIN_LOOP_REPEATS, MIN_LOOP_TOKENS


@pytest.mark.parametrize("length", [1, 2, 3, 5, 8, 20, MAX_LOOP_PHRASE_TOKENS])
def test_a_loop_is_detected_at_the_end_of_its_third_repeat_or_when_it_is_long_enough(length: int) -> None:
    speech = [1000 + n for n in range(30)]
    phrase = list(range(length))
    answer = speech + phrase * MIN_LOOP_TOKENS
    detected_at = next(size for size in range(len(speech), len(answer) + 1) if loops(answer[:size][-WINDOW_TOKENS:]))
    repeats = (detected_at - len(speech)) / length
    assert repeats == MIN_LOOP_REPEATS or (
        detected_at - len(speech) <= MIN_LOOP_TOKENS + length and repeats >= MIN_LOOP_REPEATS
    )


@pytest.mark.parametrize(
    "tokens",
    [[], [5], [1, 2] * 4, [1] * 9, [*range(60)], [1, 2, 3, 4] * 2 + [9], [7, 8, 9, 10, 11, 12] * 2],
)
def test_what_people_say_is_no_loop(tokens: list[int]) -> None:
    assert loops(tokens) == 0


def test_the_phrase_of_a_loop_is_the_shortest() -> None:
    assert loops([1, 2, 3] * 12) == 3


def test_random_text_is_no_loop() -> None:
    chance = random.Random(3)
    for _ in range(300):
        words = [chance.randrange(12) for _ in range(WINDOW_TOKENS)]
        assert loops(words) == 0


@pytest.mark.parametrize(
    ("tokens", "start"),
    [
        ([], 0),
        ([1], 1),
        ([1, 2, 3], 3),
        ([1, 1], 1),  # a token may repeat itself
        ([1, 1, 1, 1], 1),
        ([1, 2, 1], 3),  # too short to be a repetition
        ([1, 2, 1, 2], 2),
        ([1, 2, 3, 4, 2, 3], 4),
        ([1, 2, 3, 4, 2, 3, 4, 2, 3], 4),  # held from its second turn
        ([1, 2, 3, 4, 2, 3, 5], 7),  # it ended by itself
        ([0, *range(48), *range(48)], 49),
        ([*range(49), *range(48)], 97),  # longer than a loop's phrase
    ],
)
def test_a_repetition_starts_at_its_second_turn(tokens: list[int], start: int) -> None:
    assert repetition_start(tokens) == start
