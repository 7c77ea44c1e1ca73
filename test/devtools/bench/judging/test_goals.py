"""Every row has a goal, or a note that says why it has none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from devtools.bench.benchmark import Benchmark
from devtools.bench.judging.goals import NEARLY, NO_GOAL, NO_WORSE, with_goal
from devtools.bench.measurement import Goal, Row
from devtools.bench.peers import command_peers
from devtools.bench.system import OURS

BENCH = Benchmark(earlier=replace(OURS, name="abc1234"), peers=tuple(command_peers("cpp=cat {audio}")))


@pytest.mark.parametrize("theirs", ["today", "today, eager", "the package"])
def test_nothing_may_be_worse_than_the_package(theirs: str) -> None:
    assert with_goal(BENCH, Row("8 clips at once, p50", "ours bf16", theirs)).goal == NO_WORSE


def test_loadmodel_does_different_things_in_the_two() -> None:
    row = with_goal(BENCH, Row("LoadModel", "ours bf16", "today"))
    assert row.goal is None
    assert "see process start to loaded" in row.note
    assert with_goal(BENCH, Row("LoadModel", "ours bf16", "abc1234 bf16")).goal == NEARLY


def test_an_earlier_commit_may_be_better_by_a_tenth() -> None:
    assert with_goal(BENCH, Row("clip", "ours bf16", "abc1234 bf16")).goal == NEARLY
    assert with_goal(replace(BENCH, earlier=None), Row("clip", "ours bf16", "abc1234 bf16")).goal is None


def test_a_row_keeps_its_own_goal_and_a_failure_gets_none() -> None:
    own = Row("clip", "ours bf16", "today", goal=Goal("≥", 4))
    failed = Row("clip", "ours bf16", "today", failure="broke")
    assert with_goal(BENCH, own) is own
    assert with_goal(BENCH, failed) is failed


@pytest.mark.parametrize(("theirs", "said"), [("cpp", "another program"), ("unary", NO_GOAL), ("", NO_GOAL)])
def test_all_others_say_why_they_have_none(theirs: str, said: str) -> None:
    row = with_goal(BENCH, Row("clip", "ours bf16", theirs, note="a note"))
    assert row.goal is None
    assert row.note.startswith("a note; ")
    assert said in row.note
    assert NO_GOAL in with_goal(BENCH, Row("peak memory", "ours", "today", sense="share")).note
