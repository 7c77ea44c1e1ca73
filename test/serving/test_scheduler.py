from __future__ import annotations

import asyncio
import gc
import math
import threading
import weakref
from collections.abc import Callable, Sequence
from functools import partial

import pytest

from backend.errors import EngineFailure, InvalidRequest, OutOfMemory
from backend.serving.one_shot import OneShotSession
from backend.serving.scheduler import Scheduler
from backend.serving.session_kind import SessionKind


class Model:
    """Doubles numbers; waits at `gate` if there is one; raises what `faults` has for an item."""

    def __init__(self, gate: threading.Event | None = None, faults: dict[int, Exception] | None = None) -> None:
        self.gate = gate
        self.entered = threading.Event()
        self.faults = faults or {}
        self.batches: list[list[int]] = []

    def double(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.entered.set()
        if self.gate is not None:
            assert self.gate.wait(20)
        for item in items:
            if item in self.faults:
                raise self.faults[item]
        return [2 * item for item in items]

    def triple(self, items: Sequence[int]) -> list[int]:
        return [3 * item for item in items]


async def submitted(
    scheduler: Scheduler,
    work: Callable[[Sequence[int]], Sequence[int]],
    item: int,
    *,
    audio_s: float = 1,
    max_batch: int = 1,
    max_prefill_s: float = math.inf,
) -> int:
    """`item`'s result of `work`, a method of a model or a function."""
    model = getattr(work, "__self__", work)
    kind = SessionKind(work.__name__, model, partial(OneShotSession, work), max_batch, max_prefill_s)
    return await scheduler.submit(kind, item, audio_s=audio_s)


async def behind_a_closed_gate(
    scheduler: Scheduler, model: Model, jobs: list[tuple[int, float]], max_batch: int = 8, **limits: float
) -> list:
    """Submit a first job that holds the model, then `jobs` that have to wait together; the results of these."""
    assert model.gate is not None
    first = asyncio.ensure_future(submitted(scheduler, model.double, 0, max_batch=max_batch))
    await asyncio.to_thread(model.entered.wait, 20)
    rest = [
        asyncio.ensure_future(submitted(scheduler, model.double, n, audio_s=audio_s, max_batch=max_batch, **limits))
        for n, audio_s in jobs
    ]
    await asyncio.sleep(0)  # let them submit
    model.gate.set()
    await first
    return await asyncio.gather(*rest, return_exceptions=True)


async def test_what_waits_when_the_model_is_free_becomes_one_batch(scheduler: Scheduler) -> None:
    model = Model(threading.Event())
    assert await behind_a_closed_gate(scheduler, model, [(n, 5.0) for n in range(1, 7)]) == [2, 4, 6, 8, 10, 12]
    assert model.batches == [[0], [1, 2, 3, 4, 5, 6]]


async def test_a_batch_holds_no_more_than_was_allowed(scheduler: Scheduler) -> None:
    model = Model(threading.Event())
    await behind_a_closed_gate(scheduler, model, [(n, 5.0) for n in range(1, 7)], max_batch=4)
    assert model.batches == [[0], [1, 2, 3, 4], [5, 6]]


async def test_no_more_audio_is_added_together_than_is_best_prefilled_together(scheduler: Scheduler) -> None:
    model = Model(threading.Event())
    await behind_a_closed_gate(scheduler, model, [(1, 5.0), (2, 5.0), (3, 5.0)], max_prefill_s=12)
    assert model.batches == [[0], [1, 2], [3]]
    await behind_a_closed_gate(
        scheduler, Model(threading.Event()), [(1, 50.0)], max_prefill_s=12
    )  # one is always added


async def test_only_clips_of_similar_length_are_added_together(scheduler: Scheduler) -> None:
    model = Model(threading.Event())
    await behind_a_closed_gate(scheduler, model, [(1, 5.0), (2, 30.0), (3, 9.0), (4, 20.0)])
    assert model.batches == [[0], [1, 3], [4, 2]]  # the shorter first


async def test_different_work_is_never_mixed(scheduler: Scheduler) -> None:
    model = Model()
    results = await asyncio.gather(
        *(submitted(scheduler, work, n, max_batch=8) for n in range(5) for work in (model.double, model.triple))
    )
    assert results == [k * n for n in range(5) for k in (2, 3)]


async def test_a_job_that_makes_the_model_fail_fails_alone(scheduler: Scheduler) -> None:
    model = Model(threading.Event(), faults={2: RuntimeError("a secret path")})
    results = await behind_a_closed_gate(scheduler, model, [(1, 1.0), (2, 1.0), (3, 1.0)])
    assert (results[0], results[2]) == (2, 6)
    assert isinstance(results[1], EngineFailure)
    assert "secret" not in str(results[1])


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (MemoryError(), OutOfMemory),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), OutOfMemory),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"), OutOfMemory),
        (type("AcceleratorError", (RuntimeError,), {})("CUDA error: out of memory"), OutOfMemory),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), OutOfMemory),
        (RuntimeError("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasLtMatmul`"), EngineFailure),
        (ValueError("x"), EngineFailure),
        (InvalidRequest("kept"), InvalidRequest),
    ],
)
async def test_a_failure_of_the_model_has_a_name(scheduler: Scheduler, raised: Exception, expected: type) -> None:
    with pytest.raises(expected):
        await submitted(scheduler, Model(faults={1: raised}).double, 1)
    assert await submitted(scheduler, Model().double, 4) == 8


async def test_a_cancelled_job_leaves_the_queue(scheduler: Scheduler) -> None:
    gate = threading.Event()
    model = Model(gate)
    first = asyncio.ensure_future(submitted(scheduler, model.double, 0))
    await asyncio.to_thread(model.entered.wait, 20)
    cancelled = asyncio.ensure_future(submitted(scheduler, model.double, 1))
    kept = asyncio.ensure_future(submitted(scheduler, model.double, 2))
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.sleep(0)
    gate.set()
    assert (await first, await kept) == (0, 4)
    assert model.batches == [[0], [2]]


async def test_stopping_cancels_what_waits() -> None:
    gate = threading.Event()
    scheduler, model = Scheduler(), Model(gate)
    running = asyncio.ensure_future(submitted(scheduler, model.double, 1))
    await asyncio.to_thread(model.entered.wait, 20)
    waiting = asyncio.ensure_future(submitted(scheduler, model.double, 2))
    await asyncio.sleep(0)
    scheduler.stop()
    gate.set()
    assert await running == 2
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_an_idle_model_thread_holds_neither_the_model_nor_the_audio(scheduler: Scheduler) -> None:
    model = Model()
    assert await submitted(scheduler, model.double, 1) == 2
    ref = weakref.ref(model)
    del model
    while ref() is not None:
        await asyncio.sleep(0.001)
        gc.collect()


async def test_results_that_are_too_few_fail_their_jobs_and_not_the_thread(scheduler: Scheduler) -> None:
    with pytest.raises(EngineFailure):
        await submitted(scheduler, lambda _items: [], 1)
    assert await submitted(scheduler, Model().double, 4) == 8
