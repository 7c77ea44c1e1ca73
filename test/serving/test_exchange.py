"""A LoadModel of the same recogniser keeps it, and giving memory back decides nothing."""

from __future__ import annotations

import asyncio
import gc
import re
import threading
import weakref
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from backend.errors import (
    AlignerRefused,
    AlignerUnavailable,
    CheckpointRefused,
    HubFailure,
    LoadRefused,
    NonFiniteLogits,
)
from backend.options.load_options import LoadOptions
from backend.serving.model_instance import Equipped, Lean
from backend.serving.resident import Resident

OPTIONS = LoadOptions(model="a", forced_aligner="al")
OTHER = replace(OPTIONS, forced_aligner="other")
ENGINE = Path(__file__).parents[2] / "backend/engine"
LOST = type("AcceleratorError", (RuntimeError,), {})("CUDA error: an illegal memory access was encountered")


async def loaded(loader, clock=lambda: 0.0) -> Resident:
    resident = Resident(loader, clock)
    await resident.load(OPTIONS)
    return resident


async def equipped(loader) -> Resident:
    resident = await loaded(loader)
    await resident.equipped(resident.current())
    return resident


async def test_another_revision_is_another_aligner(loader) -> None:
    resident = await equipped(loader)
    await resident.load(replace(OPTIONS, forced_aligner_revision="v2"))
    assert type(resident.current()) is Lean


@pytest.mark.parametrize("before", [loaded, equipped])
async def test_another_aligner_leaves_the_recogniser_where_it_is(loader, before) -> None:
    resident = await before(loader)
    old = resident.current()
    await resident.load(OTHER)
    assert type(resident.current()) is Lean
    assert resident.current().recognizer is old.recognizer
    assert resident.options == OTHER
    new = await resident.equipped(resident.current())
    assert (new, new.options) == (resident.current(), OTHER)
    assert [event for event in loader.events if event.startswith("load")] == ["load a"]
    assert loader.events[-1] == "align other"


async def test_requests_are_served_at_any_moment_of_the_exchange(loader) -> None:
    """There is a model at each look, also while the new options are inspected, and readiness does not change."""
    states: list[bool] = []
    resident = Resident(loader, on_state_change=states.append)
    await resident.load(OPTIONS)
    states.clear()
    inspecting, gate = threading.Event(), threading.Event()

    def wait() -> None:
        inspecting.set()
        assert gate.wait(20)

    loader.before_inspect = wait
    exchange = asyncio.ensure_future(resident.load(OTHER))
    await asyncio.to_thread(inspecting.wait, 20)
    assert resident.current().options == OPTIONS
    gate.set()
    while not exchange.done():
        assert resident.identity == "a"
        await asyncio.sleep(0)
    await exchange
    assert states == []


async def test_an_aligner_that_is_refused_changes_nothing(loader) -> None:
    resident = await equipped(loader)
    before = resident.current()
    loader.refusals["inspect"] = AlignerRefused("no aligner")
    with pytest.raises(AlignerRefused):
        await resident.load(OTHER)
    assert resident.current() is before


async def test_a_request_that_began_with_the_old_aligner_ends_with_it(loader) -> None:
    resident = await equipped(loader)
    in_flight = resident.current()
    assert isinstance(in_flight, Equipped)
    old, loader.aligner = in_flight.aligner, type(loader.aligner)()
    await resident.load(OTHER)
    new = await resident.equipped(resident.current())
    assert (await resident.equipped(in_flight)).aligner is old
    assert new.aligner is loader.aligner
    assert resident.weight_bytes == {"recognizer": 1000, "aligner": 600}  # law 1: of the recogniser one copy


async def test_the_aligner_that_was_exchanged_leaves_memory_before_the_load_ends(loader) -> None:
    alive: list[bool] = []
    resident = await equipped(loader)
    loader.aligner.itself = loader.aligner  # as torch's modules: only the garbage collector can delete it
    old, loader.aligner = weakref.ref(loader.aligner), type(loader.aligner)()

    def reclaim(*, idle: bool = False) -> None:
        gc.collect()
        alive.append(old() is not None)

    loader.reclaim = reclaim
    await resident.load(OTHER)
    assert alive[:1] == [False]


async def test_a_request_from_before_the_exchange_gets_the_aligner_of_its_own_options(loader) -> None:
    resident = await loaded(loader)
    lean = resident.current()
    await resident.load(OTHER)
    of_old, of_new = await asyncio.gather(resident.equipped(lean), resident.equipped(resident.current()))
    assert (of_old.options.forced_aligner, of_new.options.forced_aligner) == ("al", "other")
    assert resident.current() is of_new
    assert loader.events[-2:] == ["align al", "align other"]


async def test_an_exchange_waits_for_the_aligner_that_is_being_loaded_and_then_drops_it(loader) -> None:
    resident = await loaded(loader)
    loader.gate = threading.Event()
    asking = asyncio.ensure_future(resident.equipped(resident.current()))
    while "align al" not in loader.events:
        await asyncio.sleep(0)
    exchange = asyncio.ensure_future(resident.load(OTHER))
    await asyncio.sleep(0)
    loader.gate.set()
    await exchange
    assert (await asking).options.forced_aligner == "al"
    assert type(resident.current()) is Lean
    assert resident.options == OTHER


async def test_free_is_not_undone_by_an_exchange_that_it_overtook(loader) -> None:
    resident = await loaded(loader)
    inspecting, gate = threading.Event(), threading.Event()

    def wait() -> None:
        inspecting.set()
        assert gate.wait(20)

    loader.before_inspect = wait
    exchange = asyncio.ensure_future(resident.load(OTHER))
    await asyncio.to_thread(inspecting.wait, 20)
    await resident.free()
    gate.set()
    with pytest.raises(LoadRefused, match="freed"):
        await exchange
    assert resident.identity == ""


async def test_options_that_requests_read_are_exchanged_and_the_aligner_stays(loader) -> None:
    resident = await equipped(loader)
    old = resident.current()
    await resident.load(replace(OPTIONS, vad=False, max_audio_s=60.0))
    current = resident.current()
    assert isinstance(current, Equipped)
    assert isinstance(old, Equipped)
    assert (current.recognizer, current.aligner) == (old.recognizer, old.aligner)
    assert current.options.vad is False
    lean = Lean(OPTIONS, old.recognizer)
    assert await resident.equipped(lean) is current  # a request from before: the same aligner
    assert [event for event in loader.events if event != "reclaim"] == ["load a", "align al"]


async def test_without_the_option_the_aligner_is_dropped(loader) -> None:
    resident = await equipped(loader)
    await resident.load(replace(OPTIONS, forced_aligner=""))
    assert type(resident.current()) is Lean
    assert resident.aligner_state == "none"
    with pytest.raises(AlignerUnavailable, match="no aligner is configured"):
        await resident.equipped(resident.current())


CHANGED: dict[str, Any] = {
    "model": "b", "model_file": "/f", "model_path": "/p", "revision": "v1", "task": "align",
    "device": "cpu", "cuda": True, "main_gpu": 1, "threads": 3,
    "dtype": "float16", "attention": "sdpa", "quantization": "int8", "batch_max_size": 3, "cuda_graphs": False,
    "max_chunk_s": 20.0, "engine_urls": ("http://b",), "engine_model": "m", "engine_api_key_env": "KEY",
    "engine_api_key_file": "/key", "engine_concurrency": 3, "engine_timeout_s": 5.0,
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGED)
async def test_what_the_recogniser_is_made_of_loads_it_again(loader, name: str) -> None:
    resident = await loaded(loader)
    await resident.load(replace(OPTIONS, **{name: CHANGED[name]}))
    assert sum(event.startswith("load") for event in loader.events) == 2


def test_every_option_is_the_recognisers_or_not() -> None:
    others = {field.name for field in fields(LoadOptions)} - set(CHANGED)
    assert {"forced_aligner", "aligner_retry_s", "vad"} < others
    changed = LoadOptions("a", **dict.fromkeys(others, "x"))  # type: ignore[arg-type] # compared and not read
    assert LoadOptions("a").has_recognizer_of(changed)


@pytest.mark.parametrize(
    ("failure", "cause"),
    [
        (CheckpointRefused("the checkpoint 'x' is a Qwen3-ASR model; name another"), "'x' is a Qwen3-ASR model"),
        (HubFailure("q/al", "does not exist"), "the hub repository 'q/al' does not exist"),
        (AlignerRefused("'x' is neither a folder nor a hub id"), "neither a folder nor a hub id"),
        (MemoryError(), "too little memory for the aligner"),
        (KeyError("secret"), r"loading failed \(KeyError\)"),
    ],
)
async def test_why_the_aligner_cannot_be_loaded_is_said_to_every_request(loader, failure, cause: str) -> None:
    resident = await loaded(loader)
    loader.refusals["aligner"] = failure
    for _ in range(2):  # the second is not a try: it is told what the first one was
        with pytest.raises(AlignerUnavailable, match=cause) as caught:
            await resident.equipped(resident.current())
        assert "secret" not in str(caught.value)
    assert loader.events.count("align al") == 1


async def test_an_exchange_tries_the_new_aligner_at_once(loader) -> None:
    resident = await loaded(loader)
    loader.refusals["aligner"] = CheckpointRefused("broken")
    with pytest.raises(AlignerUnavailable):
        await resident.equipped(resident.current())
    states = [resident.aligner_state]
    await resident.load(OTHER)
    assert [*states, resident.aligner_state] == ["failed", "waiting"]
    loader.refusals.clear()
    assert isinstance(await resident.equipped(resident.current()), Equipped)


def no_reclaim(loader, failure: Exception, after: int = 0) -> list[int]:
    """`reclaim` fails from its call number `after` on; returns the list of its calls."""
    calls: list[int] = []

    def reclaim(*, idle: bool = False) -> None:
        calls.append(len(calls))
        if len(calls) > after:
            raise failure

    loader.reclaim = reclaim
    return calls


FAILURES = [RuntimeError("can't start new thread"), MemoryError(), LOST, LoadRefused("no")]


@pytest.mark.parametrize("failure", FAILURES)
async def test_a_reclaim_that_fails_decides_no_load(loader, failure, caplog) -> None:
    calls = no_reclaim(loader, failure)
    resident = await loaded(loader)
    await resident.load(replace(OPTIONS, model="b"))
    assert resident.identity == "b"
    assert len(calls) == 2
    assert "could not be given back" in caplog.text


@pytest.mark.parametrize("failure", FAILURES)
async def test_a_reclaim_that_fails_does_not_keep_the_old_model_from_coming_back(loader, failure) -> None:
    resident = await loaded(loader)
    no_reclaim(loader, failure)
    loader.refusals["b"] = CheckpointRefused("truncated")
    with pytest.raises(CheckpointRefused, match="truncated"):
        await resident.load(replace(OPTIONS, model="b"))
    assert resident.identity == "a"


@pytest.mark.parametrize("failure", FAILURES)
async def test_a_reclaim_that_fails_after_the_aligner_decides_no_request(loader, failure) -> None:
    resident = await loaded(loader)
    no_reclaim(loader, failure)
    loader.refusals["aligner"] = CheckpointRefused("truncated")
    with pytest.raises(AlignerUnavailable, match="truncated"):
        await resident.equipped(resident.current())
    assert resident.identity == "a"


@pytest.mark.parametrize("failure", FAILURES)
async def test_a_reclaim_that_fails_decides_no_exchange_and_no_free(loader, failure) -> None:
    resident = await loaded(loader)
    no_reclaim(loader, failure)
    await resident.load(OTHER)
    assert resident.options == OTHER
    await resident.free()
    assert resident.identity == ""


async def test_where_no_thread_can_be_started_health_and_free_go_on(loader, monkeypatch) -> None:
    """The loader's own thread has been there from the start; the one of each load cannot be had."""
    reclaimed = threading.Event()

    def refuse(*_arguments: object) -> None:
        raise RuntimeError("can't start new thread")

    resident = await loaded(loader)
    fresh = Resident(loader)
    loader.reclaim = reclaimed.set
    monkeypatch.setattr(threading.Thread, "start", refuse)
    await fresh.free()
    assert reclaimed.wait(20)
    with pytest.raises(LoadRefused):
        await resident.load(replace(OPTIONS, model="b"))
    with pytest.raises(AlignerUnavailable):
        await resident.equipped(Lean(OPTIONS, loader.recognizer))
    await resident.free()


async def test_a_failure_of_ours_in_the_load_brings_the_old_model_back(loader) -> None:
    """Not only a refusal: whatever the engine raises of its own."""
    resident = await loaded(loader)
    loader.refusals["b"] = NonFiniteLogits()
    with pytest.raises(NonFiniteLogits):
        await resident.load(replace(OPTIONS, model="b"))
    assert resident.identity == "a"


async def test_the_log_names_what_was_loaded(loader, caplog) -> None:
    with caplog.at_level("INFO"):
        resident = Resident(loader)
        await resident.load(LoadOptions("Qwen/Qwen3-ASR-0.6B"))
        await resident.load(LoadOptions("Qwen/Qwen3-ASR-0.6B", forced_aligner="an\naligner"))
    said = [record.getMessage() for record in caplog.records]
    assert "loaded: the model 'Qwen/Qwen3-ASR-0.6B' alone" in said
    assert any(line.endswith("the model 'Qwen/Qwen3-ASR-0.6B' with the forced aligner 'an\\naligner'") for line in said)


def test_the_engine_reads_no_option_that_is_exchanged_without_it() -> None:
    """But for the aligner's name, by which its weights are found."""
    others = {field.name for field in fields(LoadOptions)} - set(CHANGED) - {"forced_aligner"}
    read = re.compile(rf"options\.({'|'.join(others)})\b")
    sources = {path.name: path.read_text(encoding="utf-8") for path in ENGINE.rglob("*.py")}
    assert any("options.max_chunk_s" in text for text in sources.values())
    assert [name for name, text in sources.items() if read.search(text)] == []
