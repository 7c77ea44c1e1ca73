"""What others did meanwhile is told apart from our own work."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from devtools import machine_load
from devtools.machine_load import Load, LoadWatch

SPIN = "import time\nbegan = time.process_time()\nwhile time.process_time() - began < 0.3: pass"


def test_a_machine_is_busy_from_a_tenth_of_its_processors_on() -> None:
    assert not Load(0.2, 2).is_busy
    assert Load(0.3, 2).is_busy
    assert not Load(0.3, 16).is_busy
    assert str(Load(1.26, 2)) == "busy machine: others used 1.3 of 2 processors"
    assert str(Load(0.0, 2)).startswith("quiet machine")


def test_ours_and_our_childrens_time_does_not_count(monkeypatch) -> None:
    busy_s = 0.0
    monkeypatch.setattr(machine_load, "_busy_s", lambda: busy_s)
    own_s, watch = machine_load._own_s(), LoadWatch()
    subprocess.run([sys.executable, "-c", SPIN], check=True)
    spent_s = machine_load._own_s() - own_s
    assert spent_s >= 0.3
    assert watch.load().others == 0.0  # less than nothing is nothing
    busy_s = spent_s + 1000.0
    assert watch.load().others == float(watch.load().processors)  # no more than there are


def test_time_of_others_is_counted_by_the_second(monkeypatch) -> None:
    clock, busy = [0.0], [0.0]
    monkeypatch.setattr(machine_load, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(machine_load, "_busy_s", lambda: busy[0])
    monkeypatch.setattr(machine_load, "_own_s", lambda: 0.0)
    monkeypatch.setattr(psutil, "cpu_count", lambda: 4)
    watch = LoadWatch()
    clock[0], busy[0] = 10.0, 15.0
    assert watch.load() == Load(1.5, 4)


def test_the_busiest_are_named_without_ours() -> None:
    with subprocess.Popen([sys.executable, "-c", SPIN.replace("0.3", "5")]) as ours:
        try:
            found = machine_load.busiest(0.2)
        finally:
            ours.kill()
    assert len(found) <= 3
    assert [used for _, used in found] == sorted((used for _, used in found), reverse=True)
    assert all(name for name, _ in found)


@pytest.mark.parametrize("gone", [2**30])
def test_a_process_that_has_ended_has_spent_nothing(gone: int) -> None:
    process: Any = SimpleNamespace(cpu_times=lambda: (_ for _ in ()).throw(psutil.NoSuchProcess(gone)))
    assert machine_load._spent_s(process) == 0.0
