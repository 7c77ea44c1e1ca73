"""Graceful shutdown as callers see it: running calls may finish, later calls are refused with a status of ours.

grpc's own stop closes the port first and then cancels the calls that are left. Clients would see UNAVAILABLE both times
("connection refused", "Cancelling all calls"), and the gateway would evict the model everywhere. So the port
stays open while a call is being served, and every call ends with RESOURCE_EXHAUSTED (errors.Stopping). Health and
Status are answered until the port closes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from backend.errors import Stopping
from backend.wire.status import refuse
from backend.wire.wrapping import Context, Continuation, Handler, wrapped

# Methods that are drained, and whether the shutdown waits for their running calls. A load that ends during the shutdown
# serves nobody, so it is cancelled at once.
_WAITS_FOR = {
    "AudioTranscription": True,
    "AudioTranscriptionStream": True,
    "AudioTranscriptionLive": True,
    "LoadModel": False,
}
_FLUSH_S = 1.0  # in which the statuses of cancelled calls are sent


class Drain(grpc.aio.ServerInterceptor):
    """Keeps track of the calls that are being served.

    `drain` is awaited once; `cancel_calls` may be called at any time after that.
    """

    def __init__(self) -> None:
        self._calls: dict[asyncio.Task[Any], bool] = {}  # the task that serves a call -> whether to wait for it
        self._cancelled: set[asyncio.Task[Any]] = set()  # by the shutdown, not by the client
        self._stopping = False
        self._sends_statuses = False  # a call ended during the shutdown: its status may be on its way

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        wait = _WAITS_FOR.get(str(handler_call_details.method).rpartition("/")[2])
        if handler is None or wait is None:
            return handler
        return wrapped(handler, lambda _, context: self._tracked(context, wait))

    async def drain(self, grace_s: float) -> bool:
        """Refuse new calls and wait until the running ones have ended. False: there was no call at all, so that nobody
        waits for a status.

        Calls that still run after `grace_s` seconds are cancelled and get one second more to send their statuses.
        """
        self._stopping = True
        self._cancel({task for task, wait in self._calls.items() if not wait})
        if self._calls:
            await asyncio.wait(set(self._calls), timeout=grace_s)
        if self._calls:
            self.cancel_calls()
            await asyncio.wait(set(self._calls), timeout=_FLUSH_S)
        return self._sends_statuses

    def cancel_calls(self) -> None:
        """Cancel the calls that still run; each ends with the status of errors.Stopping."""
        self._cancel(set(self._calls))

    def _cancel(self, tasks: set[asyncio.Task[Any]]) -> None:
        self._cancelled |= tasks
        for task in tasks:
            task.cancel()

    @asynccontextmanager
    async def _tracked(self, context: Context, wait: bool) -> AsyncIterator[None]:
        if self._stopping:
            self._sends_statuses = True
            await refuse(context, Stopping())
        task = asyncio.current_task()
        assert task is not None
        self._calls[task] = wait
        try:
            yield
        except asyncio.CancelledError:
            if task not in self._cancelled:
                raise  # the client cancelled the call
            await refuse(context, Stopping())
        finally:
            del self._calls[task]
            self._sends_statuses |= self._stopping
