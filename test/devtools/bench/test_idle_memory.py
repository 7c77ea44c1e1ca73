"""The measure of idle release: its figures from made-up cycles, and one cycle of the demo models."""

from __future__ import annotations

import pytest

from devtools.bench import idle_memory
from devtools.bench.benchmark import FORMATS, Benchmark
from devtools.bench.idle_memory import CYCLES, Cycles, idle
from devtools.procfs import MIB, Memory


def rows_of(released_mib: list[int], monkeypatch: pytest.MonkeyPatch, texts: tuple[str, ...] = ("a",)):
    released = [Memory(size * MIB, size * MIB) for size in released_mib]
    found = Cycles(Memory(100 * MIB, 100 * MIB), released, released, [2.0] * CYCLES, [1.0] * CYCLES, set(texts))
    monkeypatch.setattr(idle_memory, "_cycles", lambda *_: found)
    return {row.measure: row for row in idle(Benchmark(), FORMATS["fp32"])}


@pytest.mark.parametrize(
    ("released_mib", "is_small", "is_steady"),
    [
        ([110] * CYCLES, True, True),
        ([130] * CYCLES, False, True),
        ([100 + 2 * number for number in range(CYCLES)], True, False),
    ],
)
def test_what_stays_and_what_grows_are_judged_apart(
    monkeypatch, released_mib: list[int], is_small: bool, is_steady: bool
) -> None:
    rows = rows_of(released_mib, monkeypatch)
    assert rows["idle, resident memory after release"].is_good is is_small
    assert rows["idle, later releases"].is_good is is_steady
    assert rows["idle, request that loads"].medians == (2.0, 1.0)


def test_a_text_that_differs_after_a_reload_is_a_mismatch(monkeypatch) -> None:
    assert rows_of([110] * CYCLES, monkeypatch, ("a", "b"))["idle, request that loads"].mismatches == 1


@pytest.mark.slow
def test_the_demo_models_are_released_and_come_back_with_the_same_text(monkeypatch) -> None:
    monkeypatch.setattr(idle_memory, "CYCLES", 1)
    found = idle_memory._cycles(Benchmark(), FORMATS["fp32"])
    assert len(found.texts) == 1
    assert all(found.texts)
    assert found.before.anonymous > 50 * MIB  # torch is imported
    assert len(found.released) == len(found.reload_s) == 1
