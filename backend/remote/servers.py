"""The servers that recognise: which one gets the next passage, and which ones get none for a while.

Rules:
- A passage goes to the server with the fewest in flight, and never to one that has `concurrency` of them: it waits.
- A server that failed is left out. It is probed `LEFT_OUT_S` later, and again, until a probe succeeds. Only if all
  others are left out, too, it is asked all the same: the one that failed first.
- A server with passages in flight that says nothing for `PROBED_AFTER_S` is probed, so one that hangs is known before
  its passages time out.
- Probes are due only while passages are in flight: without any nobody needs to know.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

from backend.errors import named
from backend.remote.faults_of_servers import Fault
from backend.thresholds import LEFT_OUT_S, PROBED_AFTER_S

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Server:
    """`number`: from 1 on, in the operator's order. `model`: its name there, "" until the server is proved.

    `failed_at`: when it was left out, None while it is not; `heard_at`: when it said something last. Both in seconds.
    """

    number: int
    url: str
    model: str = ""
    in_flight: int = 0
    failed_at: float | None = None
    heard_at: float = field(default=0.0, repr=False)
    is_probed: bool = field(default=False, repr=False)
    probe_at: float = field(default=0.0, repr=False)

    def __str__(self) -> str:
        return f"recognition server {self.number} ({named(self.url)})"


class Servers:
    """For any thread. `concurrency`: most passages in flight at each."""

    def __init__(self, urls: Sequence[str], concurrency: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._servers = [Server(number, url) for number, url in enumerate(urls, start=1)]
        self._concurrency = concurrency
        self._clock = clock
        self._changed = threading.Condition()

    def __iter__(self) -> Iterator[Server]:
        return iter(self._servers)

    def __len__(self) -> int:
        return len(self._servers)

    @property
    def places(self) -> int:
        """How many passages can be in flight."""
        return len(self._servers) * self._concurrency

    def acquire(self, tried: Collection[Server], is_wanted: Callable[[], bool]) -> Server | None:
        """A server for one more passage, once one has room. None if all were tried, or it is no longer wanted.

        `is_wanted` is asked again at each `wake`. Each server that is returned has to be released.
        """
        with self._changed:
            while is_wanted():
                untried = [server for server in self._servers if server not in tried]
                if not untried:
                    return None
                server = self._best(untried)
                if server is not None:
                    server.in_flight += 1
                    server.heard_at = max(server.heard_at, self._clock()) if server.in_flight == 1 else server.heard_at
                    return server
                self._changed.wait()
            return None

    def _best(self, servers: list[Server]) -> Server | None:
        """None while those that are not left out have no room; without any, the one that failed first is the best."""
        candidates = [server for server in servers if server.failed_at is None]
        candidates = candidates or [min(servers, key=lambda server: server.failed_at or 0.0)]
        best = min(candidates, key=lambda server: server.in_flight)
        return best if best.in_flight < self._concurrency else None

    def release(self, server: Server, fault: Fault | None) -> None:
        """The passage at the server has ended; `fault`: what was wrong with the server."""
        with self._changed:
            server.in_flight -= 1
            if fault is None:
                self._works(server)
            elif fault.leaves_out:
                self._leave_out(server, fault)
            self._changed.notify_all()

    def heard(self, server: Server) -> None:
        """The server has said something."""
        server.heard_at = self._clock()

    def wake(self) -> None:
        """Let those that wait in `acquire` ask whether they are wanted."""
        with self._changed:
            self._changed.notify_all()

    def due_for_probe(self) -> list[Server]:
        """Those that must be probed now, each followed by `probed`."""
        now = self._clock()
        with self._changed:
            due = [server for server in self._servers if not server.is_probed and self._is_due(server, now)]
            for server in due:
                server.is_probed = True
        return due

    def _is_due(self, server: Server, now: float) -> bool:
        if server.failed_at is not None:
            return now >= server.probe_at
        return server.in_flight > 0 and now >= max(server.heard_at, server.probe_at) + PROBED_AFTER_S

    def probed(self, server: Server, fault: Fault | None) -> None:
        """A probe has ended; `fault`: what was wrong with the server."""
        with self._changed:
            server.is_probed = False
            server.probe_at = self._clock()
            if fault is None:
                self._works(server)
            else:
                self._leave_out(server, fault)
            self._changed.notify_all()

    def _works(self, server: Server) -> None:
        server.heard_at = self._clock()
        if server.failed_at is not None:
            _log.info("%s answers again", server)
            server.failed_at = None

    def _leave_out(self, server: Server, fault: Fault) -> None:
        now = self._clock()
        server.probe_at = now + LEFT_OUT_S
        if server.failed_at is None:
            _log.warning("%s %s and is left out for a while; %s", server, fault.cause, fault.remedy)
            server.failed_at = now
