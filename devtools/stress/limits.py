"""Faults of the machine: a full device, no descriptors, no memory, a killed child, a model that hangs or is lost.

Limits are put on the running server by prlimit, and the golden request is asked while they hold. What ends the engine
must end the process: exit code not zero, and a cause as the last line of stderr; the golden request is then asked of
the server that takes its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

from devtools.stress import processes
from devtools.stress.asking import (
    OK,
    Outcome,
    Wanted,
    all_asked,
    asked,
    connected,
    golden_is_exact,
    own_sound,
    statuses,
)
from devtools.stress.child import Child
from devtools.stress.form import Form, sound_folder
from devtools.stress.lines import Line, holds
from devtools.stress.plan import Fault, Kind, Plan, taking
from devtools.stress.sounds import long_sound
from devtools.stress.surviving import MEASURE

_ENDS_WITHIN_S = 30.0  # of the engine's end; a watch may take its time to be sure
_IMPATIENT = {"QWEN_ASR_STALL_SECONDS": "5"}
_SPARE_MIB = 400  # of address space beyond what the idle server has
_TYPED = frozenset({OK, "RESOURCE_EXHAUSTED", "INTERNAL"})
_KILLED = frozenset({OK, "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "INTERNAL"})


def full_stderr(form: Form) -> Iterator[Line]:
    form.say("fault: stderr is a full device")
    with sound_folder() as folder, Path("/dev/full").open("w") as full, Child(stderr=full.fileno()) as child:
        yield _line("stderr is a full device", _served(child, folder))


def closed_stderr(form: Form) -> Iterator[Line]:
    form.say("fault: nobody reads stderr any more")
    reader, writer = os.pipe()
    with sound_folder() as folder, Child(stderr=writer) as child:
        os.close(writer)
        os.close(reader)
        yield _line("nobody reads stderr any more", _served(child, folder))


def no_descriptors(form: Form) -> Iterator[Line]:
    """A crowd on connections that are there already; two descriptors are left for files."""
    form.say("fault: no descriptors")
    with sound_folder() as folder, Child() as child:
        golden = _loaded(child, folder)
        crowd = [own_sound(folder, number, 1.0, taking(5, number)) for number in range(16)]
        outcomes = asyncio.run(_without_descriptors(child, crowd))
        measured, typed = statuses(outcomes), {outcome.status for outcome in outcomes} <= _TYPED
        inexact = sum(o.status == OK and not o.is_exact(w) for w, o in zip(crowd, outcomes, strict=True))
        exact = golden_is_exact(child, golden)
    yield _fault(
        "no descriptors left", f"crowd {measured}; {inexact} wrong", exact, "typed; 0 wrong", typed and not inexact
    )


async def _without_descriptors(child: Child, crowd: list[Wanted]) -> list[Outcome]:
    async with connected(child.address) as stub:
        await asked(stub, crowd[0])
        before = resource.prlimit(child.pid, resource.RLIMIT_NOFILE)
        used = processes.next_descriptor(child.pid)
        resource.prlimit(child.pid, resource.RLIMIT_NOFILE, (used + 2, before[1]))
        outcomes = await asyncio.gather(*(asked(stub, wanted) for wanted in crowd))
        resource.prlimit(child.pid, resource.RLIMIT_NOFILE, before)
    return list(outcomes)


def no_memory(form: Form) -> Iterator[Line]:
    """Hours of silence beside short recordings, with room for neither hours nor many."""
    form.say("fault: no memory")
    with sound_folder() as folder, Child() as child:
        golden = _loaded(child, folder)
        hours = Wanted(long_sound(folder / "hours.flac", 5.5 * 3600), "", prompt=taking(1))
        crowd = [own_sound(folder, number, 2.0, taking(5, number)) for number in range(6)]
        for pid in (child.pid, *processes.children(child.pid)):
            room = processes.address_space(pid) + _SPARE_MIB * processes.MIB
            resource.prlimit(pid, resource.RLIMIT_AS, (room, resource.RLIM_INFINITY))
        first, *outcomes = asyncio.run(all_asked(child.address, [hours, *crowd]))
        exact = sum(o.is_exact(w) for w, o in zip(crowd, outcomes, strict=True))
        after = golden_is_exact(child, golden)
    yield _fault(
        f"{_SPARE_MIB} MiB left for 5.5 h of silence",
        f"victim {first.status}; bystanders {exact} of {len(crowd)} exact",
        after,
        "RESOURCE_EXHAUSTED; all exact",
        first.status == "RESOURCE_EXHAUSTED" and exact == len(crowd),
        first.details,
    )


def killed_decoder(form: Form) -> Iterator[Line]:
    """The child that decodes, as a crash of a native library would end it."""
    form.say("fault: the decoder is killed")
    with sound_folder() as folder, Child() as child:
        golden = _loaded(child, folder)
        long = Wanted(long_sound(folder / "hour.flac", 3600.0, level=0.3), "", prompt=taking(1))
        bystanders = [own_sound(folder, number, 1.0, taking(5, number)) for number in range(4)]
        victim, outcomes, killed = asyncio.run(_kill_decoders(child, long, bystanders))
        exact = sum(o.is_exact(w) for w, o in zip(bystanders, outcomes, strict=True))
        after = golden_is_exact(child, golden)
    note = "" if killed else "there is no child that decodes: a crash of a decoder would end the server"
    yield _fault(
        "the decoder is killed in a request",
        f"{killed} killed; victim {victim.status}; bystanders {exact} of {len(bystanders)} exact",
        after,
        "a child killed; a status; all exact",
        bool(killed) and victim.status in _KILLED and exact == len(bystanders),
        note,
    )


async def _kill_decoders(child: Child, long: Wanted, others: list[Wanted]) -> tuple[Outcome, list[Outcome], int]:
    """Kills whatever child of the server's computes, in the middle of a long recording."""
    async with connected(child.address) as stub:
        before = {pid: _ticks(pid) for pid in processes.children(child.pid)}
        first = asyncio.create_task(asked(stub, long))
        await asyncio.sleep(0.3)
        busy = [pid for pid in processes.children(child.pid) if _ticks(pid) - before.get(pid, 0) > 5]
        for pid in busy:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        outcomes = await asyncio.gather(*(asked(stub, wanted) for wanted in others))
        return await first, list(outcomes), len(busy)


def lost_device(form: Form) -> Iterator[Line]:
    yield from _ends(form, "the device is lost", "lost device")


def hanging_engine(form: Form) -> Iterator[Line]:
    yield from _ends(form, "the 7th step hangs", "hang")


def _ends(form: Form, injected: str, kind: Kind) -> Iterator[Line]:
    form.say(f"fault: {injected}")
    with sound_folder() as folder:
        with Child(environment=_IMPATIENT) as child:
            child.load_plan(Plan(faults=(Fault("step", kind, at=7, lasts=True),)))
            crowd = [own_sound(folder, number, 1.0, taking(20, number)) for number in range(4)]
            outcomes = asyncio.run(all_asked(child.address, crowd, _ENDS_WITHIN_S))
            code = child.ended(_ENDS_WITHIN_S / 2)
            words = child.last_words()
        with Child() as successor:
            exact = golden_is_exact(successor, _loaded(successor, folder))
    ended = "still runs" if code is None else f"exit code {code}"
    typed = all(outcome.status not in (OK, "lost") for outcome in outcomes)
    yield _fault(
        injected,
        f"{ended}; crowd {statuses(outcomes)}",
        exact,
        "exit code not 0; each a status",
        bool(code) and code != -signal.SIGKILL and typed and bool(words),
        f"last line: {words}" if words else "it said nothing",
    )


def _loaded(child: Child, folder: Path) -> Wanted:
    """The golden request of a server that is ready for it."""
    child.load_plan(Plan())
    golden = own_sound(folder, 99, 1.5, taking(2))
    if not golden_is_exact(child, golden):
        raise AssertionError("the golden request is not exact before the fault")
    return golden


def _served(child: Child, folder: Path) -> bool:
    golden = _loaded(child, folder)
    crowd = [own_sound(folder, number, 1.0, taking(5, number)) for number in range(8)]
    outcomes = asyncio.run(all_asked(child.address, crowd))
    return all(o.is_exact(w) for w, o in zip(crowd, outcomes, strict=True)) and golden_is_exact(child, golden)


def _line(injected: str, exact: bool) -> Line:
    return _fault(injected, "8 requests", exact, "all exact", exact)


def _fault(injected: str, measured: str, golden: bool, goal: str, is_met: bool, note: str = "") -> Line:
    shown = f"{measured}; golden {'exact' if golden else 'NOT EXACT'}"
    return holds(MEASURE, injected, shown, f"{goal}; exact", is_met and golden, note)


def _ticks(pid: int) -> int:
    """Of processor time that the process has used."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])
    return 0
