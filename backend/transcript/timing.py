"""Turns any times of words into times that satisfy law 3: inside the chunk, in order, none empty.

For any input: start_s <= first start, each end > its start, each start >= the end before it, last end <= end_s. Times
that contradict the others are dropped, not adjusted: their words are placed like words without times.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise

from backend.thresholds import MIN_WORD_S

Times = tuple[float, float]  # (start, end) in seconds


def credible(times: Sequence[Times], start_s: float, end_s: float) -> list[Times | None]:
    """The plausible times, without overlap and not beyond end_s; None for the others.

    Times that are not finite, reversed or outside the chunk are dropped. Of the rest the largest set with ordered
    starts is kept (patience sorting, O(n log n)), so that one outlier costs one word and not all that follow.
    """
    possible: list[Times | None] = [
        (start, end)
        if math.isfinite(start) and math.isfinite(end) and start <= end and end >= start_s and start <= end_s
        else None
        for start, end in times
    ]
    kept: list[Times | None] = [None] * len(possible)
    limit = end_s
    for at in reversed(_longest_ordered(possible)):
        known = possible[at]
        assert known is not None
        kept[at] = known[0], min(known[1], limit)
        limit = known[0]
    return kept


def _longest_ordered(times: Sequence[Times | None]) -> list[int]:
    """The indices of the longest subsequence with non-decreasing starts."""
    tails: list[float] = []
    tail_at: list[int] = []
    before = [-1] * len(times)
    for at, known in enumerate(times):
        if known is None:
            continue
        length = bisect_right(tails, known[0])
        before[at] = tail_at[length - 1] if length else -1
        tails[length : length + 1] = [known[0]]  # replaces, or appends
        tail_at[length : length + 1] = [at]
    order: list[int] = []
    at = tail_at[-1] if tail_at else -1
    while at >= 0:
        order.append(at)
        at = before[at]
    return order[::-1]


def fill(times: Sequence[Times | None], weights: Sequence[float], start_s: float, end_s: float) -> list[Times]:
    """Interpolate: each gap between known times is divided among its unknown ones, in proportion to their weights."""
    filled: list[Times] = []
    at = 0
    while at < len(times):
        known = times[at]
        if known is not None:
            filled.append(known)
            at += 1
            continue
        last = at
        while last < len(times) and times[last] is None:
            last += 1
        begin_s = filled[-1][1] if filled else start_s
        after = times[last] if last < len(times) else None
        gap_s = max(0.0, (after[0] if after else end_s) - begin_s)
        total = math.fsum(weights[at:last])
        shares = [weight / total if total else 1 / (last - at) for weight in weights[at:last]]
        for share in shares:
            filled.append((begin_s, begin_s + share * gap_s))
            begin_s = filled[-1][1]
        at = last
    return filled


def settle(times: Sequence[Times], start_s: float, end_s: float) -> list[Times]:
    """Move times as little as needed for law 3 and MIN_WORD_S; if words do not fit even so, all get equal times."""
    if not (math.isfinite(start_s) and math.isfinite(end_s) and start_s < end_s):
        raise ValueError(f"a chunk from {start_s} s to {end_s} s has no room for words")
    span_s, count = end_s - start_s, len(times)
    if count * MIN_WORD_S >= span_s:
        edges = [start_s + span_s * number / count for number in range(count)] + [end_s]
        return list(pairwise(edges))
    pushed: list[Times] = []
    cursor = start_s
    for start, end in times:  # to the right: after the word before, and long enough
        start = max(start, cursor)
        cursor = max(end, start + MIN_WORD_S)
        pushed.append((start, cursor))
    settled: list[Times] = []
    limit = end_s
    for start, end in reversed(pushed):  # to the left: words that were pushed beyond the end
        end = min(end, limit)
        limit = min(start, end - MIN_WORD_S)
        settled.append((limit, end))
    settled.reverse()
    if settled:  # rounding may have moved the first start before start_s by an ulp
        settled[0] = max(settled[0][0], start_s), settled[0][1]
    return settled
