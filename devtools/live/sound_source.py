"""Sound as it is spoken: a recording at its own pace, or raw PCM from standard input (signed 16 bit, 16 kHz, mono)."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import numpy as np

from backend.audio.decoding.decode import decode
from backend.audio.waveform import SAMPLE_RATE, Samples
from devtools.live.pacing import TICK_S, gateway_messages

_LONGEST_S = 24 * 3600.0
_AHEAD_S = 2.5  # of sound that a pipe has kept until it was read: 64 KiB
_BLOCK_BYTES = round(TICK_S * SAMPLE_RATE) * 2


def read_recording(path: str) -> Samples:
    """Raises UndecodableAudio."""
    return decode(path, max_seconds=_LONGEST_S).samples


async def played(samples: Samples) -> AsyncIterator[Samples]:
    """A recording in the gateway's messages, each when it has been spoken."""
    began = time.perf_counter()
    for message in gateway_messages(samples.size):
        await asyncio.sleep(max(began + message.due_s - time.perf_counter(), 0.0))
        yield samples[message.first : message.last]


async def recorded(read: Callable[[int], bytes] | None = None) -> AsyncIterator[Samples]:
    """What comes from a recorder until it ends. No faster than it is spoken: a file in a pipe is played."""
    read = read or (lambda size: os.read(0, size))
    began, position, odd = time.perf_counter(), 0, b""
    while piece := await _read(read):
        whole, odd = _split(odd + piece)
        samples = np.frombuffer(whole, "<i2").astype(np.float32) / np.float32(32768)
        position += samples.size
        await asyncio.sleep(max(began + position / SAMPLE_RATE - _AHEAD_S - time.perf_counter(), 0.0))
        if samples.size:
            yield samples


async def _read(read: Callable[[int], bytes]) -> bytes:
    """In a thread that does not keep the process from exiting: a recorder may wait for sound that never comes."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[bytes] = loop.create_future()

    def settle(content: bytes) -> None:
        if not done.cancelled():
            done.set_result(content)

    def run() -> None:
        content = read(_BLOCK_BYTES)
        with suppress(RuntimeError):  # the loop is closed: the process is exiting
            loop.call_soon_threadsafe(settle, content)

    threading.Thread(target=run, daemon=True).start()
    return await done


def _split(content: bytes) -> tuple[bytes, bytes]:
    """Whole samples, and the byte that is left."""
    even = len(content) & ~1
    return content[:even], content[even:]
