"""Memory of an idle model comes and goes: nothing goes in use, nothing is loaded twice, no failure is a storm."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from dataclasses import replace
from typing import Any, Literal

import pytest

from backend.errors import CheckpointRefused, ModelNotLoaded, ReloadFailed, TooLittleMemory
from backend.options.load_options import LoadOptions
from backend.serving.idle.release import NO_MODEL_EXIT_S, IdleRelease
from backend.serving.model_instance import AlignerAlone, Equipped, Lean
from backend.serving.resident import Resident

OPTIONS = LoadOptions(model="a", forced_aligner="al", aligner_idle_s=100, idle_unload_s=300)


class Model:
    weight_bytes = 8


class FreshLoader:
    """Loads new models each time, and keeps none. `refusals`: raised by the load of a model, by its name."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.refusals: dict[str, Exception] = {}
        self.gate: threading.Event | None = None

    def inspect(self, options: LoadOptions) -> Literal["recognizer", "aligner"]:
        return "aligner" if options.model == "al" else "recognizer"

    def load_recognizer(self, options: LoadOptions) -> Any:
        return self._loaded("load", options.model)

    def load_aligner(self, options: LoadOptions) -> Any:
        return self._loaded("align", options.forced_aligner)

    def reclaim(self, *, idle: bool = False) -> None:
        self.events.append("reclaim all" if idle else "reclaim")

    def _loaded(self, event: str, name: str) -> Model:
        self.events.append(f"{event} {name}")
        if self.gate is not None:
            assert self.gate.wait(20)
        if name in self.refusals:
            raise self.refusals[name]
        return Model()

    @property
    def loads(self) -> list[str]:
        return [event for event in self.events if not event.startswith("reclaim")]


class World:
    """A resident model, its clock, and what idle release did."""

    def __init__(self, *, is_watched: bool = True) -> None:
        self.now_s = 1000.0
        self.loader = FreshLoader()
        self.states: list[bool] = []
        self.resident = Resident(self.loader, lambda: self.now_s, on_state_change=self.states.append)
        self.left: list[str] = []
        self.release = IdleRelease(self.resident, self.left.append if is_watched else None)

    async def after(self, seconds: float) -> None:
        self.now_s += seconds
        await self.release.look()
        gc.collect()


def recognizer_of(resident: Resident) -> Any:
    instance = resident.current()
    assert isinstance(instance, Lean)
    return instance.recognizer


async def loaded(options: LoadOptions = OPTIONS, **kind: Any) -> World:
    world = World(**kind)
    await world.resident.load(options)
    return world


async def test_the_aligner_goes_alone_and_comes_back() -> None:
    world = await loaded()
    lean = world.resident.current()
    assert isinstance(lean, Lean)
    aligner = weakref.ref((await world.resident.equipped(lean)).aligner)
    await world.after(99)
    assert type(world.resident.current()) is Equipped
    await world.after(1)
    assert (type(world.resident.current()), recognizer_of(world.resident)) == (Lean, lean.recognizer)
    assert aligner() is None
    assert world.resident.aligner_state == "waiting"
    assert world.resident.releases == {"aligner": 1, "model": 0}
    await world.resident.equipped(world.resident.current())
    assert world.loader.loads == ["load a", "align al", "align al"]


async def test_the_weights_go_and_the_model_stays_resident() -> None:
    world = await loaded()
    recognizer = weakref.ref(recognizer_of(world.resident))
    await world.after(300)
    assert recognizer() is None
    assert sum(world.resident.weight_bytes.values()) == 0
    assert (world.resident.state, world.resident.identity, world.resident.options) == ("unloaded", "a", OPTIONS)
    assert world.states[-1] is True  # readiness stays SERVING
    world.resident.check_loaded()
    assert "reclaim all" in world.loader.events
    again = await world.resident.acquired()
    assert again is world.resident.current()
    assert (world.loader.loads, world.resident.reloads) == (["load a", "load a"], 1)


async def test_any_number_of_requests_load_it_once_and_one_that_is_cancelled_ends_no_other() -> None:
    world = await loaded()
    await world.after(300)
    world.loader.gate = threading.Event()
    requests = [asyncio.create_task(world.resident.acquired()) for _ in range(32)]
    await asyncio.sleep(0.01)
    requests[0].cancel()
    await asyncio.sleep(0)
    assert world.resident.state == "loading"
    world.loader.gate.set()
    instances = await asyncio.gather(*requests[1:])
    assert len(set(map(id, instances))) == 1
    assert world.loader.loads == ["load a", "load a"]


@pytest.mark.parametrize("use", ["model", "aligner"])
async def test_what_is_used_is_not_released(use: str) -> None:
    world = await loaded()
    await world.resident.equipped(world.resident.current())
    with world.resident.usage.model(), getattr(world.resident.usage, use)():
        await world.after(10_000)
        assert type(world.resident.current()) is (Equipped if use == "aligner" else Lean)
    await world.after(99)  # counted from the end of the use
    assert world.resident.state == "loaded"


async def test_a_use_that_begins_while_the_release_waits_for_a_load_wins() -> None:
    world = await loaded()
    world.now_s += 300
    async with world.resident._model.lock:
        look = asyncio.create_task(world.release.look())
        await asyncio.sleep(0)
        use = world.resident.usage.model()
        use.__enter__()
    await look
    assert world.resident.state == "loaded"
    use.__exit__(None, None, None)


async def test_a_recogniser_that_somebody_still_holds_is_not_loaded_beside_it() -> None:
    world = await loaded()
    held = recognizer_of(world.resident)
    await world.after(300)
    await world.resident.acquired()
    assert recognizer_of(world.resident) is held
    assert world.loader.loads == ["load a"]


@pytest.mark.parametrize("refusal", [CheckpointRefused("the file x is missing"), TooLittleMemory(None), RuntimeError()])
async def test_a_reload_that_fails_has_its_cause_and_is_no_storm(refusal: Exception) -> None:
    world = await loaded()
    await world.after(300)
    world.loader.refusals["a"] = refusal
    failures = await asyncio.gather(*(world.resident.acquired() for _ in range(8)), return_exceptions=True)
    assert {type(failure) for failure in failures} == {ReloadFailed}
    if isinstance(refusal, CheckpointRefused):
        assert all("the file x is missing" in str(failure) for failure in failures)
    with pytest.raises(ReloadFailed):
        await world.resident.acquired()
    assert world.loader.loads == ["load a", "load a"]
    del world.loader.refusals["a"]
    world.now_s += 11
    await world.resident.acquired()
    assert world.loader.loads == ["load a"] * 3
    assert world.resident.state == "loaded"


async def test_free_ends_a_released_model_and_a_reload_that_runs() -> None:
    world = await loaded()
    await world.after(300)
    await world.resident.free()
    with pytest.raises(ModelNotLoaded):
        await world.resident.acquired()
    world = await loaded()
    await world.after(300)
    world.loader.gate = threading.Event()
    request = asyncio.create_task(world.resident.acquired())
    await asyncio.sleep(0.01)
    await world.resident.free()
    world.loader.gate.set()
    with pytest.raises(ModelNotLoaded):
        await request
    assert (world.resident.state, world.resident.identity) == ("none", "")


@pytest.mark.parametrize("options", [OPTIONS, replace(OPTIONS, model="b")])
async def test_a_load_model_after_the_release_loads(options: LoadOptions) -> None:
    world = await loaded()
    await world.after(300)
    await world.resident.load(options)
    assert (world.resident.state, world.resident.options) == ("loaded", options)
    assert world.loader.loads == ["load a", f"load {options.model}"]


async def test_ten_cycles_hold_one_recogniser_at_a_time() -> None:
    world = await loaded()
    seen: list[weakref.ref[Any]] = []
    for _ in range(10):
        instance = await world.resident.equipped(await world.resident.acquired())
        seen.append(weakref.ref(recognizer_of(world.resident)))
        del instance
        assert sum(ref() is not None for ref in seen) == 1
        await world.after(300)
        assert world.resident.state == "unloaded"
    assert world.resident.reloads == 9


async def test_an_idle_process_ends_and_says_why() -> None:
    world = await loaded(replace(OPTIONS, idle_exit_s=60, idle_unload_s=0, aligner_idle_s=0))
    await world.after(59)
    assert world.left == []
    await world.after(1)
    assert world.left == ["idle for 60 s (idle_exit_seconds)"]


async def test_without_a_watched_parent_no_process_ends(caplog: pytest.LogCaptureFixture) -> None:
    world = await loaded(replace(OPTIONS, idle_exit_s=60), is_watched=False)
    await world.after(100)
    await world.after(100)
    assert [record.levelname for record in caplog.records if "idle_exit_seconds" in record.message] == ["WARNING"]
    empty = World(is_watched=False)
    await empty.after(NO_MODEL_EXIT_S)


@pytest.mark.parametrize("kind", ["never loaded", "freed"])
async def test_a_process_without_a_model_ends_after_half_an_hour(kind: str) -> None:
    world = World()
    if kind == "freed":
        world = await loaded()
        world.now_s += 1000
        await world.resident.free()
    await world.after(NO_MODEL_EXIT_S - 1)
    assert world.left == []
    await world.after(1)
    assert world.left == ["no model was loaded for 30 minutes"]


async def test_nothing_is_released_by_default() -> None:
    world = await loaded(LoadOptions(model="a", forced_aligner="al"))
    await world.resident.equipped(world.resident.current())
    await world.after(1e7)
    assert (type(world.resident.current()), world.left) == (Equipped, [])


async def test_an_aligner_alone_goes_and_comes_back() -> None:
    world = await loaded(LoadOptions(model="al", idle_unload_s=300))
    await world.after(300)
    assert world.resident.state == "unloaded"
    assert type(await world.resident.acquired()) is AlignerAlone
    assert world.loader.loads == ["align ", "align "]
