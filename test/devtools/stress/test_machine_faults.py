"""Faults of the machine: no log, no descriptors, no memory, a killed decoder, a device that hangs or is lost.

Limits are put on the running server by prlimit. A golden request must come back exact before and after each fault. A
fault that ends the engine must end the process with a non-zero exit code and the cause as the last line of stderr; the
golden request then goes to the next server.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from devtools import procfs
from devtools.stress.client import (
    EXACT,
    FULL,
    LOST,
    OK,
    Request,
    Server,
    exact_of,
    long_sound,
    noise_requests,
    statuses,
)
from devtools.stress.plan import Fault, Kind, Plan, prompt_for
from devtools.stress.results import Results

pytestmark = pytest.mark.slow

_ENDS_WITHIN_S = 30.0
_SPARE_MIB = 400  # of address space beyond that of the idle server
_TYPED = frozenset({OK, FULL, "INTERNAL"})


async def _served(server: Server, folder: Path) -> tuple[str, bool, str]:
    outcomes = await server.transcribe_all(noise_requests(folder, range(8), 1.0, 5))
    return "8 requests", all(outcome.is_exact for outcome in outcomes), ""


async def _no_descriptors(server: Server, folder: Path) -> tuple[str, bool, str]:
    """Requests on an open connection; two descriptors are left for files."""
    requests = noise_requests(folder, range(16), 1.0, 5)
    async with server.connect() as stub:
        await server.transcribe(requests[0], stub)
        before = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (procfs.next_descriptor(server.pid) + 2, before[1]))
        outcomes = await server.transcribe_all(requests, stub)
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, before)
    wrong = sum(outcome.status == OK and not outcome.is_exact for outcome in outcomes)
    is_typed = {outcome.status for outcome in outcomes} <= _TYPED
    return f"requests: {statuses(outcomes)}; {wrong} wrong", is_typed and not wrong, ""


async def _no_memory(server: Server, folder: Path) -> tuple[str, bool, str]:
    """Hours of silence beside short recordings."""
    hours = Request(long_sound(folder / "hours.flac", 5.5 * 3600), prompt=prompt_for(1))
    requests = noise_requests(folder, range(6), 2.0, 5)
    for pid in (server.pid, *procfs.children(server.pid)):
        limit = procfs.address_space_bytes(pid) + _SPARE_MIB * procfs.MIB
        resource.prlimit(pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    victim, *others = await server.transcribe_all([hours, *requests])
    is_met = victim.status == FULL and all(outcome.is_exact for outcome in others)
    return f"victim {victim.status}; bystanders {exact_of(others)}", is_met, victim.details


async def _killed_decoder(server: Server, folder: Path) -> tuple[str, bool, str]:
    """Every child that computes, in the middle of a long recording, as a crash of a native library would end it."""
    long = Request(long_sound(folder / "hour.flac", 3600.0, level=0.3), prompt=prompt_for(1))
    requests = noise_requests(folder, range(4), 1.0, 5)
    before = {pid: procfs.cpu_s(pid) for pid in procfs.children(server.pid)}
    async with server.connect() as stub:
        task = asyncio.create_task(server.transcribe(long, stub))
        await asyncio.sleep(0.3)
        busy = [pid for pid in procfs.children(server.pid) if procfs.cpu_s(pid) - before.get(pid, 0) > 0.05]
        for pid in busy:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        others = await server.transcribe_all(requests, stub)
        victim = await task
    is_typed = victim.status in {*_TYPED, "INVALID_ARGUMENT"}
    measured = f"{len(busy)} killed; victim {victim.status}; bystanders {exact_of(others)}"
    note = "" if busy else "no child decodes: a crash of a decoder would end the server"
    return measured, bool(busy) and is_typed and all(outcome.is_exact for outcome in others), note


@contextmanager
def _full_device() -> Iterator[int]:
    with Path("/dev/full").open("w") as full:
        yield full.fileno()


@contextmanager
def _broken_pipe() -> Iterator[int]:
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@dataclass(frozen=True)
class MachineFault:
    """`strike` injects the fault, sends requests, and returns the measured value, whether it is right, and a note."""

    name: str
    goal: str
    strike: Callable[[Server, Path], Awaitable[tuple[str, bool, str]]]
    stderr: Callable[[], AbstractContextManager[int | None]] = contextlib.nullcontext  # of the server; a file for None
    is_long: bool = False


FAULTS = (
    MachineFault("stderr is a full device", "all exact", _served, _full_device),
    MachineFault("nobody reads stderr any more", "all exact", _served, _broken_pipe),
    MachineFault("no descriptors left", "typed; 0 wrong", _no_descriptors),
    MachineFault(f"{_SPARE_MIB} MiB left for 5.5 h of silence", f"{FULL}; all exact", _no_memory, is_long=True),
    MachineFault("the decoder is killed in a request", "a child killed; a status; all exact", _killed_decoder),
)


@pytest.mark.soak("machine")
@pytest.mark.parametrize(
    "fault", [pytest.param(each, marks=pytest.mark.soak(is_long=each.is_long), id=each.name) for each in FAULTS]
)
async def test_a_fault_of_the_machine_is_survived(fault: MachineFault, folder: Path, results: Results) -> None:
    with fault.stderr() as stderr, Server(stderr=stderr) as server:
        server.load_plan(Plan())
        assert await server.golden() == EXACT, "before the fault"
        measured, is_met, note = await fault.strike(server, folder)
        golden = await server.golden()
    results.fault(fault.name, measured, fault.goal, is_met, golden, note)


@pytest.mark.soak("engine")
@pytest.mark.parametrize(("name", "kind"), [("the device is lost", "lost device"), ("the 7th step hangs", "hang")])
async def test_the_end_of_the_engine_ends_the_process(name: str, kind: Kind, folder: Path, results: Results) -> None:
    with Server(environment={"QWEN_ASR_STALL_SECONDS": "5"}) as server:
        server.load_plan(Plan(faults=(Fault("step", kind, at=7, lasts=True),)))
        requests = noise_requests(folder, range(4), 1.0, 20)
        outcomes = await server.transcribe_all(requests, timeout_s=_ENDS_WITHIN_S)
        code, cause = server.wait(_ENDS_WITHIN_S / 2), server.last_line()
    with Server() as successor:
        successor.load_plan(Plan())
        golden = await successor.golden()
    measured = f"{'still runs' if code is None else f'exit code {code}'}; requests: {statuses(outcomes)}"
    have_status = all(outcome.status not in (OK, LOST) for outcome in outcomes)
    is_met = bool(code) and code != -signal.SIGKILL and have_status and bool(cause)
    note = f"last line: {cause}" if cause else "it said nothing"
    results.fault(name, measured, "exit code not 0; each a status", is_met, golden, note)
