"""Items are prepared while they wait, near their turn, and nothing depends on it."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from backend.process.request_stats import RequestStats
from backend.serving.fair_queue import FairQueue
from backend.serving.job import Job
from backend.serving.preparation import Preparation
from backend.serving.scheduler import Scheduler
from backend.serving.session_kind import SessionKind

WAIT_S = 20


@dataclass(eq=False)
class Item:
    number: int
    prepared: bool = False


@dataclass
class Model:
    """Its session records what is added, and waits at its first step. Preparation fails for the numbers in `faulty`."""

    faulty: tuple[int, ...] = ()
    added: list[Item] = field(default_factory=list)
    prepared: list[int] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)
    at_step: threading.Event = field(default_factory=threading.Event)
    gate: threading.Event = field(default_factory=threading.Event)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def kind(self, max_batch: int = 2) -> SessionKind[Item, int]:
        return SessionKind("work", self, lambda: Session(self), max_batch, prepare=self.prepare)

    def prepare(self, item: Item) -> Item:
        with self.changed:
            self.threads.add(threading.current_thread().name)
            self.prepared.append(item.number)
            self.changed.notify_all()
        if item.number in self.faulty:
            raise ValueError("cannot be prepared")
        return Item(item.number, prepared=True)

    def wait_for(self, *numbers: int) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: {*numbers} <= {*self.prepared}, WAIT_S)


class Session:
    def __init__(self, model: Model) -> None:
        self.model = model
        self.items: list[Item] = []

    def __len__(self) -> int:
        return len(self.items)

    def add(self, items: Sequence[Item]) -> None:
        self.model.added += items
        self.items += items

    def step(self) -> list[tuple[Item, int]]:
        self.model.at_step.set()
        assert self.model.gate.wait(WAIT_S)
        items, self.items = self.items, []
        return [(item, item.number) for item in items]

    def drop(self, item: Item) -> None:
        self.items.remove(item)


def submitted(scheduler: Scheduler, kind: SessionKind[Item, int], *numbers: int) -> list[asyncio.Future[int]]:
    return [asyncio.ensure_future(scheduler.submit(kind, Item(number), audio_s=5)) for number in numbers]


async def running(scheduler: Scheduler, model: Model) -> list[asyncio.Future[int]]:
    """Item 1 runs, and the session waits in its step."""
    first = submitted(scheduler, model.kind(), 1)
    assert await asyncio.to_thread(model.at_step.wait, WAIT_S)
    return first


async def test_waiting_items_are_prepared_in_their_order_by_another_thread(scheduler: Scheduler) -> None:
    model = Model()
    first = await running(scheduler, model)
    later = submitted(scheduler, model.kind(), 3, 4, 5)
    assert await asyncio.to_thread(model.wait_for, 3, 4, 5)
    assert model.prepared[-3:] == [3, 4, 5]
    await asyncio.to_thread(idle, scheduler)
    model.gate.set()
    assert await asyncio.gather(*first, *later) == [1, 3, 4, 5]
    assert all(item.prepared for item in model.added if item.number > 2)
    assert model.threads == {"prepare"}


def idle(scheduler: Scheduler) -> None:
    """Wait until nothing is left to prepare: what was prepared is in its job then."""
    job = Job(Model().kind(), Item(0), 1.0, RequestStats())
    assert not job.offered
    for _ in range(1000):
        with scheduler._changed:
            if scheduler._waiting.next_to_prepare(2) is None and all(
                job.item.prepared for job in scheduler._waiting._in_turn() if job.offered
            ):
                return
        threading.Event().wait(0.01)
    raise AssertionError("something is still waiting to be prepared")


async def test_only_what_fills_the_next_two_batches_is_prepared(scheduler: Scheduler) -> None:
    model = Model()
    first = await running(scheduler, model)
    later = submitted(scheduler, model.kind(), *range(2, 13))
    assert await asyncio.to_thread(model.wait_for, 2, 3, 4, 5)
    await asyncio.sleep(0.1)
    assert {*model.prepared} - {1} == {2, 3, 4, 5}
    model.gate.set()
    assert await asyncio.gather(*first, *later) == list(range(1, 13))
    assert len(model.prepared) == len({*model.prepared})


async def test_an_item_that_cannot_be_prepared_is_added_as_it_is(scheduler: Scheduler) -> None:
    model = Model(faulty=(3,))
    first = await running(scheduler, model)
    later = submitted(scheduler, model.kind(), 3, 4)
    assert await asyncio.to_thread(model.wait_for, 3, 4)
    model.gate.set()
    assert await asyncio.gather(*first, *later) == [1, 3, 4]
    assert [item.prepared for item in model.added if item.number == 3] == [False]


async def test_a_job_that_was_cancelled_meanwhile_is_not_kept(scheduler: Scheduler) -> None:
    model = Model()
    first = await running(scheduler, model)
    (later,) = submitted(scheduler, model.kind(), 3)
    await asyncio.sleep(0)
    later.cancel()
    model.gate.set()
    await asyncio.gather(*first)
    with pytest.raises(asyncio.CancelledError):
        await later
    kept = weakref.ref(model)
    del model, first, later
    for _ in range(100):
        gc.collect()
        if kept() is None:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("a thread holds the model")


def test_an_item_whose_turn_came_first_is_not_exchanged() -> None:
    """The session answers for the very item that it was given."""
    queue, lock = FairQueue(), threading.RLock()
    preparation = Preparation(queue, lock)
    model = Model()
    entered, gate = threading.Event(), threading.Event()

    def slow(item: Item) -> Item:
        entered.set()
        assert gate.wait(WAIT_S)
        return model.prepare(item)

    kind: SessionKind[Item, int] = SessionKind("work", model, lambda: Session(model), 2, prepare=slow)
    job = Job(kind, Item(1), 5.0, RequestStats())
    with lock:
        queue.put(job)
        preparation.notify()
    assert entered.wait(WAIT_S)
    with lock:
        (taken,) = queue.take({}, 1e9)
    given = taken.item
    gate.set()
    assert model.wait_for(1)
    with lock:
        preparation.stop()
    assert taken.item is given
