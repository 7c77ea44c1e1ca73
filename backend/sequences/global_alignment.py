"""The best common subsequence of two sequences: which of the words heard are which of a text.

A dynamic programme over both (Needleman and Wunsch, with nothing for a gap): a match scores 1, and a match right behind
another MATCH_RUN_BONUS more, so a phrase stays together where its words occur elsewhere, too. Where the table would be
too large, runs that occur once in both are matched first (patience diff), and then what lies between them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

MATCH_RUN_BONUS = 0.5
_MAX_CELLS = 1 << 24  # 16 MiB of the table: 4000 words against 4000, half an hour of speech; 0.3 s
_RUN_LENGTHS = (8, 5, 3, 2, 1)  # of runs that occur once, in words

Tokens = NDArray[np.int64]
Pair = tuple[int, int]

_MATCHED, _RUNNING, _UP = 1, 2, 4  # bits of the table


def matched_pairs(first: Sequence[Hashable], second: Sequence[Hashable]) -> list[Pair]:
    """Pairs (i, j) of equal elements first[i] and second[j]; both rise. O(len(first) × len(second)) at most."""
    ids: dict[Hashable, int] = {}
    a, b = (np.array([ids.setdefault(key, len(ids)) for key in keys], np.int64) for keys in (first, second))
    if a.size > b.size:  # a row of the table is one operation, so few rows are fast
        return [(i, j) for j, i in _pairs(b, a, _RUN_LENGTHS)]
    return list(_pairs(a, b, _RUN_LENGTHS))


def _pairs(a: Tokens, b: Tokens, run_lengths: Sequence[int]) -> Iterator[Pair]:
    if not a.size or not b.size:
        return
    if a.size * b.size <= _MAX_CELLS:
        yield from _best_path(a, b)
        return
    if not run_lengths:  # repetitive or unrelated: in pieces along the diagonal
        parts = -(-a.size * b.size // _MAX_CELLS)
        edges_a, edges_b = (np.linspace(0, keys.size, parts + 1).astype(int) for keys in (a, b))
        areas = [(edges_a[n], edges_a[n + 1], edges_b[n], edges_b[n + 1]) for n in range(parts)]
    else:
        runs = _unique_runs(a, b, run_lengths[0])
        starts, ends = [(0, 0), *((i + 1, j + 1) for i, j in runs)], [*runs, (a.size, b.size)]
        areas = [(i, i_end, j, j_end) for (i, j), (i_end, j_end) in zip(starts, ends, strict=True)]
        run_lengths = run_lengths[1:]
    for number, (i, i_end, j, j_end) in enumerate(areas):
        yield from ((i + x, j + y) for x, y in _pairs(a[i:i_end], b[j:j_end], run_lengths))
        if number + 1 < len(areas) and areas[number + 1][0] == i_end + 1:  # the anchor between two areas
            yield i_end, j_end


def _unique_runs(a: Tokens, b: Tokens, length: int) -> list[Pair]:
    """Where runs of `length` tokens begin that occur once in each; the longest series of them in which both rise."""
    places = []
    for keys in (a, b):
        once: dict[bytes, int] = {}
        for at in range(keys.size - length + 1):
            run = keys[at : at + length].tobytes()
            once[run] = -1 if run in once else at
        places.append({run: at for run, at in once.items() if at >= 0})
    common = sorted((at, places[1][run]) for run, at in places[0].items() if run in places[1])
    tails: list[int] = []
    tail_at: list[int] = []
    before: list[int] = []
    for number, (_, j) in enumerate(common):
        position = bisect_left(tails, j)
        before.append(tail_at[position - 1] if position else -1)
        tails[position : position + 1] = [j]
        tail_at[position : position + 1] = [number]
    series: list[Pair] = []
    number = tail_at[-1] if tail_at else -1
    while number >= 0:
        series.append(common[number])
        number = before[number]
    return series[::-1]


def _best_path(a: Tokens, b: Tokens) -> list[Pair]:
    """Columns 0 to len(b): how much of b has been passed. `best`: any state; `matched`: the last pair is (i, j)."""
    table = np.zeros((a.size, b.size), np.uint8)
    best, matched = np.zeros(b.size + 1), np.full(b.size + 1, -np.inf)
    for i, token in enumerate(a):
        run = matched[:-1] + MATCH_RUN_BONUS
        is_equal, is_running = b == token, run > best[:-1]
        matched = np.concatenate(([-np.inf], np.where(is_equal, 1 + np.maximum(run, best[:-1]), -np.inf)))
        highest = np.maximum.accumulate(np.maximum(best, matched))
        table[i] = (
            _MATCHED * (matched[1:] >= highest[1:])
            | _RUNNING * (is_equal & is_running)
            | _UP * (best[1:] >= highest[1:])
        )
        best = highest
    pairs = []
    i, j, in_run = a.size - 1, b.size - 1, False
    while i >= 0 and j >= 0:
        state = table[i, j]
        if in_run or state & _MATCHED:
            pairs.append((i, j))
            in_run = bool(state & _RUNNING)
            i, j = i - 1, j - 1
        elif state & _UP:
            i -= 1
        else:
            j -= 1
    return pairs[::-1]
