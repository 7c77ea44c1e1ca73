"""What stands in the table where a question of the live bench has no answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest

from devtools.bench.benchmark import Benchmark
from devtools.bench.live import live_rows
from devtools.bench.measurement import Failed, Row

BENCH = Benchmark(formats=("bf16",))


def test_a_question_that_fails_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def answered(*_: Any) -> Iterator[Row]:
        yield Row("answered", "ours bf16", "")

    def _silence(*_: Any) -> Iterator[Row]:
        raise Failed("a stream ended with CANCELLED")

    monkeypatch.setattr(live_rows, "loaded", lambda *_: nullcontext(object()))
    monkeypatch.setattr(live_rows, "connected", lambda *_: None)
    for name in ("_ready", "_one_speaker", "_endings", "_many_speakers", "_beside_files"):
        monkeypatch.setattr(live_rows, name, answered)
    monkeypatch.setattr(live_rows, "_silence", _silence)
    rows = list(live_rows.live_rows(BENCH))
    assert [row.failure for row in rows] == ["", "", "a stream ended with CANCELLED", "", "", ""]
    assert (rows[2].measure, rows[2].ours) == ("live, silence", "ours bf16")


@pytest.mark.parametrize(("alone", "beside", "lost"), [(0, 0, None), (8, 6, 25.0)])
def test_of_no_answers_none_can_be_lost(
    monkeypatch: pytest.MonkeyPatch, alone: int, beside: int, lost: float | None
) -> None:
    results = iter([[], alone, ([], beside)])
    monkeypatch.setattr(live_rows, "connected", lambda *_: next(results))
    monkeypatch.setattr(live_rows, "_lag_p95_s", lambda *_: 1.0)
    server: Any = None
    row = list(live_rows._beside_files(BENCH, server))[-1]
    if lost is None:
        assert (row.pairs, row.failure) == ((), "no file was answered in 20 s without a stream")
    else:
        assert (row.pairs[0][0], row.failure) == (lost, "")
