"""Checks that may hang or crash run in child processes with a time limit: a driver, a library of C, a broken install.

A child prints JSON objects, one a line, each when it is known: what came before a hang is not lost.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from backend.doctor.places import ROOT

_KILL_TIMEOUT_S = 2.0  # a process that is blocked in a driver ends when the driver lets it


@dataclass(frozen=True)
class Report:
    """`facts`: the objects of all lines as one. `failure`: why there are no more, "" if the child ended well."""

    facts: dict[str, Any] = field(default_factory=dict)
    failure: str = ""
    timed_out: bool = False


@dataclass(frozen=True)
class Output:
    """`code`: the exit code; None where the program is not there or had to be killed."""

    code: int | None
    stdout: str
    stderr: str
    timed_out: bool = False


def report_of(module: str, timeout_s: float, *arguments: str) -> Report:
    """What `python -m module` reports."""
    output = run([sys.executable, "-m", module, *arguments], timeout_s)
    facts: dict[str, Any] = {}
    for line in output.stdout.splitlines():
        with contextlib.suppress(ValueError, TypeError):  # a line that a library printed, or one that was cut off
            facts.update(json.loads(line))
    return Report(facts, _failure(output, timeout_s), output.timed_out)


def run(command: Sequence[str], timeout_s: float) -> Output:
    """The program's output; it is killed with its children after `timeout_s` seconds. Raises nothing."""
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        try:
            process = subprocess.Popen(  # noqa: S603 - our own modules, and programs named in this room
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, start_new_session=True
            )
        except OSError as error:
            return Output(None, "", error.strerror or type(error).__name__)
        code, timed_out = _wait(process, timeout_s)
        texts = []
        for file in (stdout, stderr):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return Output(code, texts[0], texts[1], timed_out)


def _wait(process: subprocess.Popen[bytes], timeout_s: float) -> tuple[int | None, bool]:
    """Exit code, and whether the time was over; leaves no child behind, whatever interrupts it."""
    try:
        return process.wait(timeout_s), False
    except subprocess.TimeoutExpired:
        return None, True
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_KILL_TIMEOUT_S)


def _failure(output: Output, timeout_s: float) -> str:
    if output.timed_out:
        return f"no answer within {timeout_s:.0f} s"
    if output.code is not None and output.code < 0:
        return f"it crashed: {signal.strsignal(-output.code) or -output.code}"
    if output.code == 0:
        return ""
    return next((line.strip() for line in reversed(output.stderr.splitlines()) if line.strip()), "it ended in silence")
