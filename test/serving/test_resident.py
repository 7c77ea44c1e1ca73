"""Law 1: one copy of the recogniser's weights, one load of the aligner, no request in flight disturbed."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref

import pytest
from instances import lean_of

from backend.errors import (
    AlignerUnavailable,
    CheckpointRefused,
    DeviceLost,
    LoadRefused,
    ModelNotLoaded,
    TooLittleMemory,
)
from backend.options.load_options import LoadOptions
from backend.serving.model_instance import Equipped, Lean
from backend.serving.resident import Resident

OPTIONS = LoadOptions(model="a", forced_aligner="al")
LOST = type("AcceleratorError", (RuntimeError,), {})("CUDA error: an illegal memory access was encountered")


async def loaded(loader, clock=lambda: 0.0) -> Resident:
    resident = Resident(loader, clock)
    await resident.load(OPTIONS)
    return resident


async def test_nothing_is_resident_before_a_load(loader) -> None:
    resident = Resident(loader)
    with pytest.raises(ModelNotLoaded):
        resident.current()
    assert resident.identity == ""
    assert resident.weight_bytes == {"recognizer": 0, "aligner": 0}


async def test_a_load_loads_the_recogniser_alone(loader) -> None:
    resident = await loaded(loader)
    assert type(resident.current()) is Lean
    assert resident.weight_bytes == {"recognizer": 1000, "aligner": 0}
    assert not any(event.startswith("align") for event in loader.events)


async def test_the_threads_of_loads_end_with_them(loader) -> None:
    """OpenMP's workers live as long as the thread that started them, and too many slow every thread down."""
    threads = []
    loader.before_each = lambda: threads.append(threading.current_thread())
    resident = await loaded(loader)
    await resident.equipped(lean_of(resident))
    assert len(threads) == 2
    assert not any(thread.is_alive() for thread in threads)


async def test_the_first_of_many_concurrent_requests_for_times_loads_the_aligner_once(loader) -> None:
    resident = await loaded(loader)
    lean = lean_of(resident)
    loader.gate = threading.Event()
    waiting = [asyncio.ensure_future(resident.equipped(lean)) for _ in range(32)]
    await asyncio.sleep(0)
    assert resident.current() is lean  # plain requests are served meanwhile
    loader.gate.set()
    instances = await asyncio.gather(*waiting)
    assert loader.events.count("align al") == 1
    assert all(instance is resident.current() for instance in instances)
    assert isinstance(resident.current(), Equipped)
    assert lean_of(resident).recognizer is lean.recognizer
    assert resident.weight_bytes == {"recognizer": 1000, "aligner": 300}
    assert await resident.equipped(lean) is resident.current()  # of a request that took the lean one before the swap
    assert loader.events.count("align al") == 1


async def test_a_request_that_is_cancelled_does_not_end_the_load_for_the_others(loader) -> None:
    resident = await loaded(loader)
    loader.gate = threading.Event()
    first, second = (asyncio.ensure_future(resident.equipped(lean_of(resident))) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    loader.gate.set()
    assert isinstance(await second, Equipped)
    assert loader.events.count("align al") == 1


async def test_an_aligner_that_cannot_be_loaded_leaves_the_lean_model_and_is_not_tried_at_every_request(loader) -> None:
    now = 0.0
    resident = await loaded(loader, lambda: now)
    lean = lean_of(resident)
    loader.refusals["aligner"] = CheckpointRefused("broken")
    for _ in range(3):
        with pytest.raises(AlignerUnavailable):
            await resident.equipped(lean)
    assert loader.events.count("align al") == 1
    assert resident.current() is lean
    now = OPTIONS.aligner_retry_s + 1
    del loader.refusals["aligner"]
    assert isinstance(await resident.equipped(lean), Equipped)


async def test_without_a_configured_aligner_there_is_none(loader) -> None:
    resident = Resident(loader)
    await resident.load(LoadOptions(model="a"))
    with pytest.raises(AlignerUnavailable):
        await resident.equipped(lean_of(resident))
    assert loader.events == ["reclaim", "load a"]


async def test_an_aligner_whose_load_raises_anything_is_unavailable_and_not_tried_again_for_a_while(loader) -> None:
    resident = await loaded(loader)
    loader.refusals["aligner"] = PermissionError("/secret")
    for _ in range(2):
        with pytest.raises(AlignerUnavailable) as caught:
            await resident.equipped(lean_of(resident))
        assert "secret" not in str(caught.value)
    assert loader.events.count("align al") == 1


async def test_the_same_options_again_load_nothing(loader) -> None:
    resident = await loaded(loader)
    before = resident.current()
    await asyncio.gather(*(resident.load(OPTIONS) for _ in range(5)))
    assert resident.current() is before
    assert loader.events.count("load a") == 1


async def aligner_loads(resident: Resident, loader) -> asyncio.Future[Equipped]:
    """The aligner's load has started, and waits at the loader's gate."""
    loader.gate = threading.Event()
    equipping = asyncio.ensure_future(resident.equipped(lean_of(resident)))
    while "align al" not in loader.events:
        await asyncio.sleep(0)
    return equipping


async def test_the_same_options_again_do_not_wait_for_the_aligner(loader) -> None:
    resident = await loaded(loader)
    equipping = await aligner_loads(resident, loader)
    await asyncio.wait_for(resident.load(OPTIONS), 20)
    assert not equipping.done()
    loader.gate.set()
    assert await equipping is resident.current()
    assert loader.events.count("load a") == 1


async def test_the_same_options_again_are_resident_in_the_end_if_others_waited_for_the_aligner_first(loader) -> None:
    resident = await loaded(loader)
    equipping = await aligner_loads(resident, loader)
    other = asyncio.ensure_future(resident.load(LoadOptions(model="b")))
    await asyncio.sleep(0)
    same = asyncio.ensure_future(resident.load(OPTIONS))
    await asyncio.sleep(0)
    loader.gate.set()
    await asyncio.gather(equipping, other, same)
    assert [event for event in loader.events if event.startswith("load")] == ["load a", "load b", "load a"]
    assert resident.identity == "a"


async def test_the_same_options_again_after_a_free_load_the_model_once_the_aligners_load_has_ended(loader) -> None:
    resident = await loaded(loader)
    equipping = await aligner_loads(resident, loader)
    await resident.free()
    again = asyncio.ensure_future(resident.load(OPTIONS))
    await asyncio.sleep(0)
    loader.gate.set()
    await asyncio.gather(equipping, again)
    assert loader.events.count("load a") == 2
    assert resident.identity == "a"


async def test_two_loads_at_once_are_one(loader) -> None:
    resident = Resident(loader)
    await asyncio.gather(*(resident.load(OPTIONS) for _ in range(5)))
    assert loader.events.count("load a") == 1


async def test_other_options_release_before_they_load(loader) -> None:
    resident = await loaded(loader)
    loader.events.clear()
    await resident.load(LoadOptions(model="b"))
    assert loader.events == ["reclaim", "load b"]
    assert resident.identity == "b"


async def test_a_load_that_is_refused_at_inspection_releases_nothing(loader) -> None:
    resident = await loaded(loader)
    before = resident.current()
    loader.refusals["inspect"] = CheckpointRefused("not ours")
    with pytest.raises(CheckpointRefused):
        await resident.load(LoadOptions(model="b"))
    assert resident.current() is before


async def test_after_a_load_that_fails_late_the_old_model_serves_again(loader) -> None:
    resident = await loaded(loader)
    loader.refusals["b"] = CheckpointRefused("truncated")
    with pytest.raises(CheckpointRefused):
        await resident.load(LoadOptions(model="b"))
    assert resident.identity == "a"
    assert lean_of(resident).recognizer is loader.recognizer


async def test_what_a_failed_load_had_loaded_is_collected_before_the_old_model_is_loaded_again(loader) -> None:
    resident = await loaded(loader)
    alive: list[bool] = []
    half: list[weakref.ref] = []
    load = loader.load_recognizer

    def load_half(options: LoadOptions):
        if options.model == "a":
            gc.collect()
            alive.extend(ref() is not None for ref in half)
            return load(options)
        part = type(loader.recognizer)()
        half.append(weakref.ref(part))
        try:
            raise OSError
        except OSError as error:
            raise CheckpointRefused("truncated") from error

    loader.load_recognizer = load_half
    with pytest.raises(CheckpointRefused, match="truncated"):
        await resident.load(LoadOptions(model="b"))
    assert alive == [False]
    assert resident.identity == "a"


async def test_two_loads_at_once_are_one_and_other_options_wait_their_turn(loader) -> None:
    resident = Resident(loader)
    await asyncio.gather(*(resident.load(OPTIONS) for _ in range(5)), resident.load(LoadOptions(model="b")))
    assert [event for event in loader.events if event.startswith("load")] == ["load a", "load b"]
    assert resident.identity == "b"


async def test_free_drops_the_model_and_a_request_in_flight_keeps_its_own(loader) -> None:
    resident = await loaded(loader)
    in_flight = lean_of(resident)
    await resident.free()
    with pytest.raises(ModelNotLoaded):
        resident.current()
    assert in_flight.recognizer is loader.recognizer
    await resident.load(OPTIONS)
    assert resident.identity == "a"


async def test_free_does_not_wait_for_an_aligner_that_loads_and_only_the_request_for_it_gets_it(loader) -> None:
    resident = await loaded(loader)
    loader.gate = threading.Event()
    asking = asyncio.ensure_future(resident.equipped(lean_of(resident)))
    while "align al" not in loader.events:
        await asyncio.sleep(0)
    await resident.free()
    loader.gate.set()
    assert isinstance(await asking, Equipped)
    with pytest.raises(ModelNotLoaded):
        resident.current()


@pytest.mark.parametrize("stage", ["before_inspect", "before_each"])
async def test_free_is_not_undone_by_a_load_that_it_overtook(loader, stage: str) -> None:
    resident = Resident(loader)
    reached, gate = threading.Event(), threading.Event()

    def wait() -> None:
        reached.set()
        assert gate.wait(20)

    setattr(loader, stage, wait)
    loading = asyncio.ensure_future(resident.load(OPTIONS))
    await asyncio.sleep(0)
    behind_it = asyncio.ensure_future(resident.load(LoadOptions(model="b")))
    await asyncio.to_thread(reached.wait, 20)
    await resident.free()
    gate.set()
    for load in (loading, behind_it):
        with pytest.raises(LoadRefused, match="freed"):
            await load
    with pytest.raises(ModelNotLoaded):
        resident.current()
    await resident.load(OPTIONS)
    assert resident.identity == "a"


async def test_a_load_that_raises_anything_is_refused_without_its_details(loader) -> None:
    resident = await loaded(loader)
    loader.refusals["b"] = OSError("/secret")
    with pytest.raises(LoadRefused) as caught:
        await resident.load(LoadOptions(model="b"))
    assert "secret" not in str(caught.value)
    assert resident.identity == "a"


def led_to(cause: Exception) -> CheckpointRefused:
    """A refusal as engine/model/recognizer.py raises it, from a library's error, which came from the driver's."""
    library, refusal = ValueError(), CheckpointRefused("could not be loaded")
    library.__context__, refusal.__cause__ = cause, library
    return refusal


@pytest.mark.parametrize("failure", [LOST, led_to(LOST)])
async def test_a_device_that_a_load_lost_is_reported_and_nothing_is_loaded_there_again(loader, failure) -> None:
    calls: list[str] = []
    resident = Resident(loader, on_device_lost=lambda: calls.append("lost"))
    await resident.load(OPTIONS)
    loader.refusals["b"] = failure
    with pytest.raises(DeviceLost):
        await resident.load(LoadOptions(model="b"))
    assert calls == ["lost"]
    assert loader.events.count("load a") == 1
    with pytest.raises(ModelNotLoaded):
        resident.current()


async def test_a_device_that_the_aligners_load_lost_is_reported(loader) -> None:
    calls: list[str] = []
    resident = Resident(loader, on_device_lost=lambda: calls.append("lost"))
    await resident.load(OPTIONS)
    loader.refusals["aligner"] = led_to(LOST)
    with pytest.raises(AlignerUnavailable):
        await resident.equipped(lean_of(resident))
    assert calls == ["lost"]


NO_MEMORY = type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.mark.parametrize("failure", [NO_MEMORY, led_to(NO_MEMORY), MemoryError()])
async def test_a_model_that_is_too_large_for_the_device_is_refused_with_a_remedy(loader, failure) -> None:
    resident = await loaded(loader)
    loader.refusals["b"] = failure
    with pytest.raises(TooLittleMemory, match=r"too little memory .* choose a smaller one"):
        await resident.load(LoadOptions(model="b"))
    assert resident.identity == "a"  # which fits


async def test_an_aligner_that_is_too_large_for_the_device_is_called_too_large(loader, caplog) -> None:
    resident = await loaded(loader)
    loader.refusals["aligner"] = led_to(NO_MEMORY)
    with pytest.raises(AlignerUnavailable, match="too little memory for the aligner"):
        await resident.equipped(lean_of(resident))
    assert "choose a smaller one" in caplog.text


@pytest.mark.parametrize(
    "refusal",
    [
        "no kernel image is available for execution on the device",
        "device kernel image is invalid",
        "CUDA-capable device(s) is/are busy or unavailable",
        "invalid device ordinal",
        "operation not supported",
        "the provided PTX was compiled with an unsupported toolchain.",
    ],
)
async def test_a_device_that_refuses_a_load_is_not_lost(loader, refusal) -> None:
    calls: list[str] = []
    resident = Resident(loader, on_device_lost=lambda: calls.append("lost"))
    loader.refusals["a"] = type(LOST)(f"CUDA error: {refusal}")
    with pytest.raises(LoadRefused, match="loading failed"):
        await resident.load(OPTIONS)
    assert calls == []


async def test_a_new_model_is_not_equipped_with_the_old_ones_aligner(loader) -> None:
    resident = await loaded(loader)
    old = lean_of(resident)
    loader.recognizer = type(loader.recognizer)()
    await resident.load(LoadOptions(model="b", forced_aligner="other"))
    first, second = await asyncio.gather(resident.equipped(old), resident.equipped(lean_of(resident)))
    assert (first.recognizer, first.options.forced_aligner) == (old.recognizer, "al")
    assert second is resident.current()
    assert second.options.forced_aligner == "other"
    assert {"align al", "align other"} <= set(loader.events)


async def test_weights_are_counted_until_the_last_request_with_them_ends(loader) -> None:
    resident = await loaded(loader)
    in_flight = await resident.equipped(lean_of(resident))
    await resident.free()
    assert resident.weight_bytes == {"recognizer": 1000, "aligner": 300}
    loader.recognizer, loader.aligner = type(loader.recognizer)(), type(loader.aligner)()
    await resident.load(OPTIONS)
    assert resident.weight_bytes == {"recognizer": 2000, "aligner": 300}  # the new one's and the request's
    del in_flight
    gc.collect()
    assert resident.weight_bytes == {"recognizer": 1000, "aligner": 0}


async def test_the_half_loaded_aligner_of_a_failed_load_is_reclaimed_at_once(loader) -> None:
    alive: list[bool] = []
    parts: list[weakref.ref] = []

    def load_half(options: LoadOptions):
        part = type(loader.aligner)()
        parts.append(weakref.ref(part))
        raise CheckpointRefused("truncated")

    def reclaim(*, idle: bool = False) -> None:
        gc.collect()
        alive.extend(ref() is not None for ref in parts)

    loader.load_aligner = load_half
    loader.reclaim = reclaim
    resident = Resident(loader)
    await resident.load(LoadOptions("a", forced_aligner="al"))
    with pytest.raises(AlignerUnavailable):
        await resident.equipped(lean_of(resident))
    assert alive == [False]


async def test_memory_is_reclaimed_when_the_last_request_with_a_freed_model_ends(loader) -> None:
    resident = await loaded(loader)
    in_flight = lean_of(resident)
    loader.recognizer = type(loader.recognizer)()
    await resident.free()
    reclaimed = loader.events.count("reclaim")
    del in_flight
    gc.collect()
    while loader.events.count("reclaim") == reclaimed:
        await asyncio.sleep(0.001)
