"""Faults of the models: each strikes one of eight requests, and afterwards a golden request must come back exact.

The marked request of the eight is the victim. The table says what the victim gets; the seven others, the bystanders,
must not notice. One server goes through all faults; after one that ended it, or left it unable to answer, the next
fault gets a new server.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from backend.wire import backend_pb2 as pb
from devtools.server_process import DEMO_MODEL, ServerFailed
from devtools.stress.client import (
    AUDIO,
    CANCELLED,
    EXACT,
    FULL,
    OK,
    Outcome,
    Request,
    Server,
    exact_of,
    noise_requests,
    statuses,
)
from devtools.stress.fakes import ALIGNERS
from devtools.stress.plan import Fault, Plan
from devtools.stress.results import Results

pytestmark = pytest.mark.slow

_LOADS = 150
_EXCHANGES, _BETWEEN = 20, 8  # requests between two of them
_STEPS, _STEP_S = 20, 0.003
_LONGER = 10  # times as many steps, where the others must still run when the victim comes or goes
_TIMEOUT_S = 15.0
_HEALTH_S = 1.0  # the gateway's shortest timeout for Health
_INTERNAL = "INTERNAL"


@dataclass(frozen=True)
class ModelFault:
    """`status`: of the victim, whose text must be exact with OK. `also`: faults that strike with it."""

    name: str
    fault: Fault
    status: str = OK
    times: bool = False
    warns: bool = False  # the victim's reply carries a warning
    because: str = ""  # which says so
    also: tuple[Fault, ...] = ()
    leaves: bool = False  # the victim is cancelled while the others run
    late: bool = False  # the victim comes while the others run


FAULTS = (
    ModelFault("out of memory at the 3rd step, once", Fault("step", "out of memory", at=3)),
    ModelFault("out of memory as one joins those that run, once", Fault("add", "out of memory", once=True), late=True),
    ModelFault("a request that is always too large for a step", Fault("step", "out of memory"), FULL),
    ModelFault("a request that is always too large to enter", Fault("add", "out of memory"), FULL),
    ModelFault("an exception at the 5th step, once", Fault("step", "exception", at=5)),
    ModelFault("a request that fails every batch it is in", Fault("step", "exception"), _INTERNAL),
    ModelFault("a request that cannot enter a batch", Fault("add", "exception"), _INTERNAL),
    ModelFault("a session that cannot begin, once", Fault("session", "exception", at=1)),
    ModelFault("a client leaves, and its row cannot be dropped", Fault("drop", "exception"), CANCELLED, leaves=True),
    ModelFault("a text that no reply can hold", Fault("step", "text that no reply can hold"), _INTERNAL),
    ModelFault("a step of 2 s", Fault("step", "slow", at=4)),
    ModelFault(
        "the aligner cannot be loaded",
        Fault("load aligner", "exception", at=1),
        times=True,
        warns=True,
        because="the aligner cannot be loaded: loading failed (ValueError)",
    ),
    ModelFault(
        "the aligner does not fit",
        Fault("load aligner", "out of memory", at=1),
        times=True,
        warns=True,
        because="too little memory for the aligner",
    ),
    ModelFault(
        "the aligner cannot be loaded, nor its memory given back",
        Fault("load aligner", "exception", at=1),
        also=(Fault("reclaim", "exception", at=1, lasts=True),),
        times=True,
        warns=True,
        because="the aligner cannot be loaded: loading failed (ValueError)",
    ),
    ModelFault("the aligner fails on a passage", Fault("align", "exception"), times=True, warns=True),
    ModelFault("the aligner runs out of memory on a passage", Fault("align", "out of memory"), times=True, warns=True),
    ModelFault("the aligner fails once", Fault("align", "exception", at=1), times=True),
    ModelFault("the aligner gives times that are NaN", Fault("align", "NaN times"), times=True),
    ModelFault("the aligner gives too few answers", Fault("align", "too few answers"), times=True, warns=True),
)


@pytest.fixture(scope="module")
def servers() -> Iterator[list[Server]]:
    """The last one is used as long as it works."""
    servers: list[Server] = []
    yield servers
    for server in servers:
        server.close()


@pytest.mark.soak("models")
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
async def test_a_fault_of_a_model_touches_the_victim_alone(
    fault: ModelFault, servers: list[Server], folder: Path, results: Results
) -> None:
    if not servers or not servers[-1].is_alive:
        servers.append(Server().__enter__())
    server = servers[-1]
    server.load_plan(Plan(step_s=_STEP_S, faults=(fault.fault, *fault.also)), "batch_max_size:8")
    steps = _STEPS * (_LONGER if fault.leaves or fault.late else 1)
    (marked,) = noise_requests(folder, [0], 2.0, steps, times=fault.times, marked=True)
    others = noise_requests(folder, range(1, 8), 2.0, steps, times=fault.times)
    async with server.timed_health() as health_s, server.connect() as stub:
        others_done = asyncio.create_task(server.transcribe_all(others, stub, _TIMEOUT_S))
        await asyncio.sleep(_STEPS * _STEP_S if fault.late else 0)
        task = asyncio.create_task(server.transcribe(marked, stub, _TIMEOUT_S))
        if fault.leaves:
            await asyncio.sleep(_STEPS * _STEP_S * 3)
            task.cancel()
        bystanders = await others_done
        (end,) = await asyncio.gather(task, return_exceptions=True)
    victim = end if isinstance(end, Outcome) else Outcome(marked, CANCELLED)
    golden = await server.golden()
    if golden != EXACT:
        server.close()
    shown = f"{victim.status}{' exact' * victim.is_exact}{' + warning' * bool(victim.warning)}"
    wanted = f"{fault.status}{' exact' * (fault.status == OK)}{' + warning' * fault.warns}"
    problems = {
        f"bystanders: {statuses(bystanders)}": not all(outcome.is_exact for outcome in bystanders),
        "no warning": fault.warns and not victim.warning,
        f"the warning lacks its cause: {victim.warning}": fault.because not in victim.warning,
        "the text of the cause reached the client": "connection" in victim.details,  # the gateway would act on it
        f"Health took {max(health_s):.2f} s": max(health_s) > _HEALTH_S,
    }
    note = "; ".join(problem for problem, is_there in problems.items() if is_there)
    is_right = victim.status == fault.status and (victim.is_exact or fault.status != OK)
    measured = f"victim {shown}; bystanders {exact_of(bystanders)}"
    results.fault(fault.name, measured, f"{wanted}; all exact", is_right and not note, golden, note)


@pytest.mark.soak("models")
async def test_many_loads_under_load_lose_nothing(folder: Path, results: Results) -> None:
    """A request between two models gets FAILED_PRECONDITION; all others are answered."""
    outcomes: list[Outcome] = []
    loads, done = 0, asyncio.Event()

    async def send(request: Request) -> None:
        async with server.connect() as stub:
            while not done.is_set():
                outcomes.append(await server.transcribe(request, stub, _TIMEOUT_S))

    with Server(arguments=("--collect-every", "1")) as server:
        server.load_plan(Plan())
        plain, timed = (noise_requests(folder, seeds, 0.3, 2, times=seeds[0] == 0) for seeds in ([1, 3], [0, 2]))
        tasks = [asyncio.create_task(send(request)) for request in (*plain, *timed)]
        try:
            for number in range(1, _LOADS + 1):
                plan = Plan(step_s=0.001 + number * 1e-9)  # another name each time, or it would be no load
                await asyncio.to_thread(server.load_plan, plan, timeout_s=_TIMEOUT_S)
                loads = number
        except ServerFailed:
            pass
        done.set()
        await asyncio.gather(*tasks)
        golden = await server.golden()
    bad = [outcome for outcome in outcomes if not outcome.is_exact and outcome.status != "FAILED_PRECONDITION"]
    measured, is_met = f"{loads} loads; {len(bad)} of {len(outcomes)} lost or wrong", loads == _LOADS and not bad
    name = f"{_LOADS} other models, one after the other"
    results.fault(name, measured, f"{_LOADS} loads; 0", is_met, golden, statuses(outcomes))


@pytest.mark.soak("models")
async def test_another_aligner_is_exchanged_under_load(folder: Path, results: Results) -> None:
    """No request is refused or wrong meanwhile, and there is one recogniser: the first one."""
    outcomes: list[Outcome] = []
    recognizer_bytes, done = set[int](), asyncio.Event()

    async def send(request: Request) -> None:
        async with server.connect() as stub:
            while not done.is_set():
                outcomes.append(await server.transcribe(request, stub, _TIMEOUT_S))

    async def look() -> None:
        async with server.connect() as stub:
            while not done.is_set():
                status = await stub.Status(pb.HealthMessage(), timeout=_TIMEOUT_S)
                recognizer_bytes.add(status.memory.breakdown["recognizer"])

    with Server() as server:
        server.load_plan(Plan())
        plain, timed = (noise_requests(folder, seeds, 0.3, 2, times=seeds[0] == 0) for seeds in ([1, 3], [0, 2]))
        tasks = [asyncio.create_task(each) for each in (look(), *(send(request) for request in (*plain, *timed)))]
        for number in range(_EXCHANGES):
            name = f"forced_aligner:{ALIGNERS[(number + 1) % 2]}"
            await asyncio.to_thread(server.load_plan, Plan(), name, timeout_s=_TIMEOUT_S)
            enough = len(outcomes) + _BETWEEN
            while len(outcomes) < enough:
                await asyncio.sleep(0.005)
        refused = _try_load(server, pb.ModelOptions(Model=Plan().as_name(), Options=["vad:off", "forced_aligner:/x"]))
        done.set()
        await asyncio.gather(*tasks)
        golden = await server.golden()
    bad = [outcome for outcome in outcomes if not outcome.is_exact or outcome.warning]
    measured = f"{len(bad)} of {len(outcomes)} refused, wrong or without times; recognisers of {recognizer_bytes} bytes"
    is_met = not bad and recognizer_bytes == {1000} and refused == "refused"
    name = f"{_EXCHANGES} other aligners, and one that is none"
    results.fault(name, measured, "0; of 1000 bytes", is_met, golden, statuses(outcomes))


@pytest.mark.soak("models")
@pytest.mark.parametrize("also", ["", ", and memory cannot be given back"])
async def test_a_refused_load_leaves_the_model_that_was_there(also: str, results: Results) -> None:
    """The model that was there before goes on."""
    with Server() as server:
        server.load_plan(Plan(faults=(Fault("reclaim", "exception", at=1, lasts=True),) if also else ()))
        model = Plan(faults=(Fault("load recognizer", "out of memory", at=1),)).as_name()
        loaded = _try_load(server, pb.ModelOptions(Model=model, Options=["vad:off", "forced_aligner:shares"]))
        golden = await server.golden()
    name = f"another model that does not fit{also}"
    results.fault(name, f"LoadModel {loaded}", "refused", loaded == "refused", golden)


def _try_load(server: Server, model: pb.ModelOptions) -> str:
    """`loaded`, `refused`, or the text of another failure."""
    try:
        server.load(model, 120.0)
    except ServerFailed as failure:
        return str(failure) if failure.__cause__ else "refused"  # by the reply, not by a status
    return "loaded"


@pytest.mark.soak("models", is_long=True)
@pytest.mark.parametrize("damage", ["weights that are no numbers", "weights that are cut short"])
async def test_a_damaged_checkpoint_is_refused_or_fails(
    damage: str, demo_server: Server, folder: Path, results: Results
) -> None:
    """The demo's recognizer through run.sh: refused at the load, or no request gets OK; argmax over NaN is a token."""
    request = Request(AUDIO / "chinese.wav")
    shutil.copytree(DEMO_MODEL, folder / "model")
    weights = folder / "model/model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2] if "cut" in damage else _with_nan(content))
    expected = (await demo_server.transcribe(request)).result.text
    measured = loaded = _try_load(demo_server, pb.ModelOptions(Model=damage, ModelFile=str(folder / "model")))
    is_met = loaded == "refused"
    if loaded == "loaded":
        victim = await demo_server.transcribe(request)
        measured, is_met = f"loaded; victim {victim.status} {victim.result.text[:20]!r}", victim.status != OK
        demo_server.load_demo()
    after = await demo_server.transcribe(replace(request, text=expected))
    golden = EXACT if after.is_exact else "NOT EXACT"
    results.fault(damage, f"LoadModel {measured}", "refused, or not OK", is_met, golden)


def _with_nan(safetensors: bytes) -> bytes:
    """The weights with NaN in the last norm. Raises StopIteration if there is no such tensor."""
    header = 8 + int.from_bytes(safetensors[:8], "little")
    tensors: dict[str, Any] = json.loads(safetensors[8:header])
    norm = next(tensor for name, tensor in tensors.items() if name.endswith("model.norm.weight"))
    begin, end = (header + int(offset) for offset in norm["data_offsets"])
    nan = {"BF16": b"\xc0\x7f", "F16": b"\x00\x7e", "F32": b"\x00\x00\xc0\x7f"}[norm["dtype"]]
    return safetensors[:begin] + nan * ((end - begin) // len(nan)) + safetensors[end:]
