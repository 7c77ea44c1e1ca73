"""Loops are seen soon after they begin, and what people say is none."""

from __future__ import annotations

import random

import pytest

from backend.sequences.loop_detection import LEAST_TOKENS, LONGEST_PHRASE, LOOKED_AT, TURNS, loops


@pytest.mark.parametrize("length", [1, 2, 3, 5, 8, 20, LONGEST_PHRASE])
def test_a_loop_is_seen_at_the_end_of_its_third_turn_or_when_it_is_long_enough(length: int) -> None:
    said = [1000 + n for n in range(30)]
    phrase = list(range(length))
    written = said + phrase * LEAST_TOKENS
    seen = next(size for size in range(len(said), len(written) + 1) if loops(written[:size][-LOOKED_AT:]))
    turns = (seen - len(said)) / length
    assert turns == TURNS or (seen - len(said) <= LEAST_TOKENS + length and turns >= TURNS)


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
        words = [chance.randrange(12) for _ in range(LOOKED_AT)]
        assert loops(words) == 0
