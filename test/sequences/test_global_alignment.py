from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.sequences import global_alignment
from backend.sequences.global_alignment import matched_pairs


def check(first, second, pairs) -> None:
    assert all(first[i] == second[j] for i, j in pairs)
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(pairs))


@pytest.mark.parametrize(
    ("first", "second", "pairs"),
    [
        ("", "abc", []),
        ("abc", "", []),
        ("abc", "xyz", []),
        ("abcd", "abxd", [(0, 0), (1, 1), (3, 3)]),
        ("chorus", "chorus", [(n, n) for n in range(6)]),
        ("ab", "axxab", [(0, 3), (1, 4)]),  # together, not where the first a is
    ],
)
def test_pairs_are_the_most_and_stay_together(first: str, second: str, pairs: list[tuple[int, int]]) -> None:
    assert matched_pairs(first, second) == pairs


@settings(max_examples=200)
@given(st.lists(st.integers(0, 4), max_size=30), st.lists(st.integers(0, 4), max_size=30), st.sampled_from([1, 40]))
def test_pairs_are_equal_and_rise_whatever_fits_into_the_table(first, second, cells) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(global_alignment, "_MAX_CELLS", cells)
        check(first, second, matched_pairs(first, second))


def test_long_sequences_are_matched_between_runs_that_occur_once(monkeypatch) -> None:
    monkeypatch.setattr(global_alignment, "_MAX_CELLS", 10_000)
    chance = random.Random(1)
    first = [chance.randrange(500) for _ in range(3000)]
    second = [word if chance.random() > 0.1 else -1 for word in first]
    pairs = matched_pairs(first, second)
    check(first, second, pairs)
    assert len(pairs) >= 0.99 * sum(word >= 0 for word in second)
