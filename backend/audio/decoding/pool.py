"""The one way in for audio: a path goes in, its samples come out, and what a decoder does on the way costs one request.

- The file is opened here (safe_open), first by threads that do nothing else: a bad path does not wait until others
  are decoded, and a share that does not answer costs one of them and one request, but nobody who decodes. What is in
  the file is touched by a child only (audio/decoding/process), which gets the descriptor.
- There are as many children as there was work for at once, up to a few; one is kept warm. A child that fails is ended
  and replaced in the background; if none can be started, the request fails and the next one tries again.
- A client that goes is noticed within a tenth of a second, whatever the child is doing.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from backend.audio.decoding.causes import UNREACHABLE
from backend.audio.decoding.process import COMMAND, LOOK_S, DecoderProcess, IsGone
from backend.audio.decoding.safe_open import check, opened
from backend.audio.waveform import Decoded
from backend.errors import AsrError, Cancelled, UndecodableAudio

_MOST_CHILDREN = 4  # also on one core: a command of three seconds must not wait behind one recording of hours
_MOST_OPEN = 16  # files that are open at once: those that are decoded, and those that wait for it
_MOST_CHECKED = 16  # files that are looked at; so many may hang before nobody can be served
_PATIENCE_S = 5.0  # a disk that slept may take as long


class DecoderPool:
    """Decodes recordings. Starts nothing before it is asked or told to expect work."""

    def __init__(
        self,
        command: Sequence[str] = COMMAND,
        most: int = _MOST_CHILDREN,
        check: Callable[[str], None] = check,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        self._command = command
        self._most = most
        self._threads = ThreadPoolExecutor(_MOST_OPEN, "decode")  # children end with the thread that started them
        self._check = check
        self._patience_s = patience_s
        self._checking = ThreadPoolExecutor(_MOST_CHECKED, "open")
        self._free = asyncio.Semaphore(_MOST_CHECKED)  # its threads
        self._idle: list[DecoderProcess] = []  # last in, first out: the others may be swapped out
        self._count = 0  # of all children: idle, at work, being started
        self._is_refilling = False
        self._closed = False
        self._changed = threading.Condition()

    def expect(self) -> None:
        """Recordings will come: have a child ready. Waits for nothing."""
        with self._changed:
            if not self._count:
                self._refill_soon()

    async def decode(self, path: str, *, max_seconds: float) -> Decoded:
        """The recording in the file `path`.

        Raises UndecodableAudio if there is none, or one of more than `max_seconds`; OutOfMemory if the machine has no
        memory for it; EngineFailure if it is not the file's fault.
        """
        await self._refuse_bad(path)
        gone = threading.Event()
        work = asyncio.get_running_loop().run_in_executor(
            self._threads, self._decode, path, max_seconds, lambda: gone.is_set() or self._closed
        )
        try:
            return await work
        finally:
            gone.set()

    async def _refuse_bad(self, path: str) -> None:
        """Raises UndecodableAudio if there is nothing to decode at the path."""
        looking = asyncio.ensure_future(self._look(path))
        try:  # not wait_for, which may take a cancellation for an answer
            done, _ = await asyncio.wait({looking}, timeout=self._patience_s)
        finally:
            looking.cancel()
        fault = looking.result() if done else UndecodableAudio(UNREACHABLE)
        if fault is not None:
            raise fault

    async def _look(self, path: str) -> Exception | None:
        await self._free.acquire()  # rather than in the threads' queue, where who has given up would still wait
        looked = asyncio.get_running_loop().run_in_executor(self._checking, self._fault, path)
        looked.add_done_callback(lambda _: self._free.release())
        return await asyncio.shield(looked)

    def _fault(self, path: str) -> Exception | None:
        """What is wrong with the file, told and not raised: perhaps nobody waits for it any more."""
        try:
            self._check(path)
        except (UndecodableAudio, OSError) as error:
            return error
        return None

    def close(self) -> None:
        """End all children; who still waits for one is told Cancelled."""
        with self._changed:
            self._closed = True
            idle, self._idle = self._idle, []
            self._changed.notify_all()
        for child in idle:
            child.end()
        self._checking.shutdown(wait=False, cancel_futures=True)
        self._threads.shutdown(cancel_futures=True)

    def _decode(self, path: str, max_seconds: float, is_gone: IsGone) -> Decoded:
        with opened(path) as fd:
            child = self._taken(is_gone)
            try:
                return child.decode(fd, max_seconds, is_gone)
            finally:
                self._put_back(child)

    def _taken(self, is_gone: IsGone) -> DecoderProcess:
        """A child for one job: an idle one, a new one, or the next that is put back."""
        while True:
            child = self._next(is_gone)
            if child is None:
                return self._new()
            if child.is_fit:
                return child
            self._dismiss(child)  # it died in its sleep, which is nobody's fault

    def _next(self, is_gone: IsGone) -> DecoderProcess | None:
        """An idle child, or None, and room for another has been kept. Waits for either."""
        with self._changed:
            while not is_gone():
                if self._idle:
                    return self._idle.pop()
                if self._count < self._most:
                    self._count += 1
                    return None
                self._changed.wait(LOOK_S)
        raise Cancelled

    def _new(self) -> DecoderProcess:
        try:
            return DecoderProcess(self._command, lambda: self._closed)
        except BaseException:
            self._discount()
            raise

    def _put_back(self, child: DecoderProcess) -> None:
        if not self._keep(child):
            self._dismiss(child)
            with self._changed:
                self._refill_soon()

    def _keep(self, child: DecoderProcess) -> bool:
        """Let the child wait for its next job; False if it cannot have one."""
        with self._changed:
            if self._closed or not child.is_fit:
                return False
            self._idle.append(child)
            self._changed.notify()
            return True

    def _dismiss(self, child: DecoderProcess) -> None:
        child.end()  # not under the lock, which Health takes: a process may end slowly
        self._discount()

    def _discount(self) -> None:
        with self._changed:
            self._count -= 1
            self._changed.notify()

    def _refill_soon(self) -> None:
        if not (self._closed or self._is_refilling or self._idle):
            self._is_refilling = True
            self._threads.submit(self._refill)

    def _refill(self) -> None:
        """Start one, unless that has happened meanwhile."""
        with self._changed:
            self._is_refilling = False
            if self._closed or self._idle or self._count >= self._most:
                return
            self._count += 1
        with contextlib.suppress(AsrError):  # it is in the log, and the next request tries again
            child = self._new()
            if not self._keep(child):
                self._dismiss(child)  # not to be replaced: what dies at its start would be started for ever
