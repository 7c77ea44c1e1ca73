"""Ends the process when its parent has gone: a killed gateway must not leave a model in memory.

An orphan is adopted by another process, so its parent's id changes; that is polled. The watch is armed before
anything heavy is imported, because a gateway can die at any moment of the start-up, too. PR_SET_PDEATHSIG is no answer:
it fires when the parent's thread ends, and a Go program ends threads as it likes.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Mapping

_log = logging.getLogger(__name__)

_DEFAULT_INTERVAL_S = 2.0
_SHORTEST_INTERVAL_S = 0.05  # a watch must not become a load
_LONGEST_INTERVAL_S = 3600.0  # more than a clock can hold would end the watch
_LONGEST_FAREWELL_S = 0.5
_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_GO_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")


def interval_s(environment: Mapping[str, str]) -> float | None:
    """Seconds between two looks at the parent; None if the watch is switched off."""
    if environment.get("LOCALAI_BACKEND_PARENT_WATCH", "").strip().lower() in ("false", "0", "no", "off"):
        return None
    wanted = environment.get("LOCALAI_BACKEND_PARENT_WATCH_INTERVAL", "").strip()
    seconds = _seconds(wanted) if wanted else _DEFAULT_INTERVAL_S
    if seconds is None or seconds <= 0:
        _log.warning("LOCALAI_BACKEND_PARENT_WATCH_INTERVAL is not a duration such as 500ms or 2s; using 2s")
        return _DEFAULT_INTERVAL_S
    return min(max(seconds, _SHORTEST_INTERVAL_S), _LONGEST_INTERVAL_S)


def _seconds(duration: str) -> float | None:
    """A Go duration (`500ms`, `1m30s`) or a bare number of seconds; None for anything else."""
    if re.fullmatch(r"\d+(\.\d+)?", duration):
        return float(duration)
    if not re.fullmatch(f"(?:{_GO_PART.pattern})+", duration):
        return None
    return sum(float(number) * _UNITS_S[unit] for number, unit in _GO_PART.findall(duration))


def watch(environment: Mapping[str, str], orphaned: Callable[[], None] | None = None) -> None:
    """Start the watch in a thread of its own. `orphaned` is called once when the parent has gone."""
    seconds = interval_s(environment)
    if seconds is None:
        return
    # run.sh tells whom it was started by: the parent may already have gone when Python gets here
    parent = int(environment.get("QWEN_ASR_PARENT", "") or os.getppid())
    if _is_stranger(parent):
        parent = -1  # nobody's id
    thread = threading.Thread(target=_poll, args=(parent, seconds, orphaned or _leave), name="parent", daemon=True)
    thread.start()


def _is_stranger(parent: int) -> bool:
    """Whether that process has adopted this one: the real parent died before even run.sh could look.

    Who starts a process shares his session with it, unless the new one leads a session of its own.
    """
    try:
        return os.getsid(0) not in (os.getpid(), os.getsid(parent))
    except OSError:  # gone since, which _poll sees; or a system that does not tell
        return False


def _poll(parent: int, seconds: float, orphaned: Callable[[], None]) -> None:
    while os.getppid() == parent:
        time.sleep(seconds)
    orphaned()


def _leave() -> None:
    """Nobody is left to answer, so nothing is drained."""
    # A log that is a pipe whose reader has stopped reading may block for ever.
    last = threading.Timer(_LONGEST_FAREWELL_S, os._exit, (0,))
    last.daemon = True
    last.start()
    _log.error("the parent process has gone; leaving")
    os._exit(0)
