"""Parent watch: ends the process when its parent has died, so that a killed gateway leaves no model in memory.

An orphan is adopted by another process, so its parent's process id changes; that is polled. The watch starts before the
slow imports, because the gateway can die during the start-up, too. PR_SET_PDEATHSIG would not do: it fires when the
parent's thread ends, and the Go runtime ends threads at any time.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from backend.errors import NoThreads
from backend.process.countdown import Countdown

_log = logging.getLogger(__name__)

_DEFAULT_INTERVAL_S = 2.0
_MIN_INTERVAL_S = 0.05  # bounds the cost of polling
_MAX_INTERVAL_S = 3600.0  # time.sleep fails on values that a clock cannot hold
_MAX_LOG_WRITE_S = 0.5
_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_GO_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")


def interval_s(environment: Mapping[str, str]) -> float | None:
    """Seconds between two polls, 0.05 to 3600; None if the watch is switched off."""
    if environment.get("LOCALAI_BACKEND_PARENT_WATCH", "").strip().lower() in ("false", "0", "no", "off"):
        return None
    setting = environment.get("LOCALAI_BACKEND_PARENT_WATCH_INTERVAL", "").strip()
    seconds = _seconds(setting) if setting else _DEFAULT_INTERVAL_S
    if seconds is None or seconds <= 0:
        _log.warning("LOCALAI_BACKEND_PARENT_WATCH_INTERVAL is not a duration such as 500ms or 2s; using 2s")
        return _DEFAULT_INTERVAL_S
    return min(max(seconds, _MIN_INTERVAL_S), _MAX_INTERVAL_S)


def _seconds(duration: str) -> float | None:
    """A Go duration (`500ms`, `1m30s`) or a bare number of seconds; None for anything else."""
    if re.fullmatch(r"\d+(\.\d+)?", duration):
        return float(duration)
    if not re.fullmatch(f"(?:{_GO_PART.pattern})+", duration):
        return None
    return sum(float(number) * _UNITS_S[unit] for number, unit in _GO_PART.findall(duration))


def described(environment: Mapping[str, str]) -> str:
    """For the log: which process is watched, and how to switch that off."""
    if interval_s(environment) is None:
        return "the parent process is not watched (LOCALAI_BACKEND_PARENT_WATCH)"
    parent = _parent(environment)
    try:
        name = f" ({Path(f'/proc/{parent}/comm').read_text(encoding='utf-8', errors='replace').strip()})"
    except OSError:
        name = ""
    return (
        f"watching process {parent}{name}, which started this one: when it ends, so does the backend; "
        "LOCALAI_BACKEND_PARENT_WATCH=false switches that off"
    )


def _parent(environment: Mapping[str, str]) -> int:
    """run.sh passes on its parent's id, because the parent may have died before Python is up."""
    passed_on = environment.get("QWEN_ASR_PARENT", "")
    return int(passed_on) if passed_on.isdecimal() else os.getppid()


def watch(environment: Mapping[str, str], orphaned: Callable[[], None] | None = None) -> None:
    """Start the watch in a thread of its own. When the parent has died, `orphaned` is called once.

    Without `orphaned`, the process exits with code 0. Raises NoThreads.
    """
    seconds = interval_s(environment)
    if seconds is None:
        return
    parent = _parent(environment)
    if _is_adopter(parent):
        parent = -1  # no process has this id, so the first poll finds an orphan
    end = orphaned or _exit_with(Countdown(os._exit))
    try:
        threading.Thread(target=_poll, args=(parent, seconds, end), name="parent", daemon=True).start()
    except RuntimeError:
        raise NoThreads from None


def _is_adopter(parent: int) -> bool:
    """Whether that process has adopted this one, because the real parent died before run.sh read its id.

    A process shares its session with its parent, unless it leads a session of its own.
    """
    try:
        return os.getsid(0) not in (os.getpid(), os.getsid(parent))
    except OSError:  # it has died since, which _poll will see; or the system does not say
        return False


def _poll(parent: int, seconds: float, orphaned: Callable[[], None]) -> None:
    while os.getppid() == parent:
        time.sleep(seconds)
    orphaned()


def _exit_with(countdown: Countdown) -> Callable[[], None]:
    """Exits without draining: no client is left that waits for a response."""

    def leave() -> None:
        countdown.start(_MAX_LOG_WRITE_S, 0)  # the log may be a pipe that is no longer read: writing blocks for ever
        _log.error("the parent process has gone; leaving (LOCALAI_BACKEND_PARENT_WATCH=false would go on)")
        os._exit(0)

    return leave
