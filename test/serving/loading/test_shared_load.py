"""A load that several requests wait for: one for all, whoever leaves, and nothing of it stays."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from backend.serving.loading.shared_load import SharedLoad


class Model:
    pass


class Loads:
    """Each load waits for `gate`, then brings a new model or raises `failure`."""

    def __init__(self) -> None:
        self.count = 0
        self.gate = asyncio.Event()
        self.failure: Exception | None = None

    async def load(self) -> Model:
        self.count += 1
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return Model()


async def test_requests_for_the_same_share_a_load_and_others_have_their_own() -> None:
    loads, shared = Loads(), SharedLoad[Model]()
    waiting = [asyncio.create_task(shared.result(loads.load, of)) for of in ("a", "b", "a", "a")]
    await asyncio.sleep(0)
    loads.gate.set()
    first, other, *same = await asyncio.gather(*waiting)
    assert same == [first, first]
    assert other is not first
    assert loads.count == 2
    assert await shared.result(loads.load, "a") is not first  # which has ended


async def test_what_was_loaded_is_not_kept() -> None:
    loads, shared = Loads(), SharedLoad[Model]()
    loads.gate.set()
    loaded = weakref.ref(await shared.result(loads.load))
    await asyncio.sleep(0)
    gc.collect()
    assert loaded() is None


async def test_a_failure_reaches_all_who_wait_and_the_next_load_is_a_new_one() -> None:
    loads, shared = Loads(), SharedLoad[Model]()
    loads.failure = OSError("broken")
    waiting = [asyncio.create_task(shared.result(loads.load)) for _ in range(3)]
    await asyncio.sleep(0)
    loads.gate.set()
    assert await asyncio.gather(*waiting, return_exceptions=True) == [loads.failure] * 3
    loads.failure = None
    assert isinstance(await shared.result(loads.load), Model)
    assert loads.count == 2


async def test_asyncio_does_not_complain_of_a_failure_that_nobody_waits_for_any_more() -> None:
    complaints: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))
    loads, shared = Loads(), SharedLoad[Model]()
    loads.failure = OSError("broken")
    waiting = asyncio.create_task(shared.result(loads.load))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    loads.gate.set()
    for _ in range(3):
        await asyncio.sleep(0)
    gc.collect()
    assert complaints == []
    assert loads.count == 1
