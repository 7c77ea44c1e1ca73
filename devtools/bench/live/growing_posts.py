"""Today's way to captions: a client that posts the recording so far every second, as a whole, to the unary call."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from backend.audio.waveform import SAMPLE_RATE
from backend.wire import backend_pb2 as pb

EVERY_S = 1.0


async def post_growing(stub: Any, samples: NDArray[np.float32]) -> list[tuple[float, str]]:
    """What each reply said, and when it came in seconds of the sound. A post waits for the reply to the one before."""
    began = time.perf_counter()
    texts: list[tuple[float, str]] = []
    with tempfile.TemporaryDirectory(prefix="growing-") as folder:
        path, spoken = Path(folder) / "sound.wav", 0
        while spoken < samples.size:
            due_s = min((int((time.perf_counter() - began) / EVERY_S) + 1) * EVERY_S, samples.size / SAMPLE_RATE)
            await asyncio.sleep(max(began + due_s - time.perf_counter(), 0.0))
            spoken = min(round((time.perf_counter() - began) * SAMPLE_RATE), samples.size)
            soundfile.write(path, samples[:spoken], SAMPLE_RATE)
            reply = await stub.AudioTranscription(pb.TranscriptRequest(dst=str(path), diarize=True))
            texts.append((time.perf_counter() - began, reply.text))
    return texts
