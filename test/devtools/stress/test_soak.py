"""The short form of `make soak`: what is counted is asserted; times are printed, because a busy machine breaks them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from devtools.stress import endings, load, machine_faults, model_faults
from devtools.stress.model_faults import servers
from devtools.stress.plan import Plan
from devtools.stress.profile import Profile
from devtools.stress.results import Results

__all__ = ["servers"]
pytestmark = pytest.mark.soak
CLEANUP_S = 10.0  # for a slot that is wanted within one


@pytest.fixture(autouse=True)
def printed(results: Results) -> Iterator[None]:
    yield
    for row in results.rows:
        print(f"{row.measure}: {row.what}: {row.measured} {row.goal} {row.note}")


async def test_a_load_loses_nothing_and_mixes_nothing_up(profile: Profile, folder: Path, results: Results) -> None:
    await load.test_load_of_noise(profile, folder, results)
    assert not results.missed_counts()
    assert results["sent"].figures["exact"] >= 20


async def test_an_overload_is_refused_and_nothing_else(profile: Profile, folder: Path, results: Results) -> None:
    await load.test_overload(profile, folder, results)
    assert not results.missed_counts()
    assert "RESOURCE_EXHAUSTED" in results["arrived"].measured
    assert results["arrived"].figures["answered"] >= 8


@pytest.mark.parametrize("stage", endings.STAGES, ids=lambda stage: stage.name)
async def test_a_client_that_leaves_frees_its_slot(
    stage: endings.Stage, profile: Profile, folder: Path, results: Results
) -> None:
    await endings.test_cancelled_in_a_stage(stage, profile, folder, results)
    assert not results.missed_counts()
    (row,) = results.rows
    assert row.figures["value"] < CLEANUP_S


async def test_sigterm_loses_nothing_that_can_finish(profile: Profile, folder: Path, results: Results) -> None:
    await endings.test_sigterm_with_requests_that_never_end(profile, folder, results)
    assert not results.missed_counts()
    assert results["exit"].figures["value"] < 10  # the grace: nothing was left to wait for


@pytest.mark.parametrize("fault", model_faults.FAULTS, ids=lambda fault: fault.name)
async def test_a_fault_of_a_model_touches_the_victim_alone(
    fault: model_faults.ModelFault, servers: list[model_faults.Server], folder: Path, results: Results
) -> None:
    await model_faults.test_model_fault(fault, servers, folder, results)
    row = results[fault.name]
    assert row.is_met, (row.measured, row.goal, row.note)


async def test_a_load_that_fails_leaves_the_model_that_was_there(results: Results) -> None:
    await model_faults.test_refused_load(results)
    assert not results.missed_counts()


async def test_many_loads_under_load_lose_nothing(folder: Path, results: Results) -> None:
    await model_faults.test_loads_under_load(folder, results)
    assert not results.missed_counts()


FAULTS = [fault for fault in machine_faults.FAULTS if "of silence" not in fault.name]  # which takes hours of it


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
async def test_a_fault_of_the_machine_is_survived(
    fault: machine_faults.MachineFault, folder: Path, results: Results
) -> None:
    await machine_faults.test_machine_fault(fault, folder, results)
    assert not results.missed_counts()


@pytest.mark.parametrize(("name", "kind"), [("the device is lost", "lost device"), ("the 7th step hangs", "hang")])
async def test_the_end_of_the_engine_ends_the_process(
    name: str, kind: machine_faults.Kind, folder: Path, results: Results
) -> None:
    await machine_faults.test_end_of_the_engine(name, kind, folder, results)
    assert not results.missed_counts()


async def test_memory_does_not_grow_and_a_build_that_leaks_is_caught(profile: Profile, folder: Path) -> None:
    steady = await load.growth(Plan(steps=2), profile.requests, folder)
    leaking = await load.growth(Plan(steps=2, leaks=True), profile.requests // 2, folder)
    print(f"per 1000 requests: {steady.slope_mib:.1f} MiB, with a leak {leaking.slope_mib:.0f} MiB")
    assert (steady.inexact, leaking.inexact) == (0, 0)
    assert max(steady.descriptors, 0) == max(steady.children, 0) == 0
    assert leaking.slope_mib > 60  # the samples alone are 122
    assert steady.slope_mib < 30  # in a run as short as this, one arena of the allocator's is a slope


def test_the_slope_is_of_the_second_half() -> None:
    done = list(range(40))
    held = [min(number, 20) * 1000 + max(number - 20, 0) * 7 for number in done]
    assert load.slope(done, held) == pytest.approx(7, rel=0.1)
