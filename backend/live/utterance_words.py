"""The recognised pieces of a live stream, for its transcript, and the times of their words where they are asked for.

A piece is aligned behind its commit, in a task of its own, and pieces one after the other: neither captions nor sound
wait for the aligner, and words leave in order. Of a piece that is kept the sound is dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from backend.audio.waveform import SAMPLE_RATE, Chunk
from backend.live.live_event import LiveEvent, LiveWord
from backend.live.sound_window import Piece
from backend.options.load_options import TranscribeOptions
from backend.pipeline.alignment import Alignment
from backend.pipeline.recognized_chunk import RecognizedChunk, main_language
from backend.pipeline.transcriber import words_of
from backend.process.request_stats import RequestStats
from backend.serving.model_instance import Lean
from backend.serving.resident import Resident
from backend.serving.scheduler import Scheduler


class UtteranceWords:
    """For the event loop's thread."""

    def __init__(
        self,
        resident: Resident,
        scheduler: Scheduler,
        instance: Lean,
        options: TranscribeOptions,
        stats: RequestStats,
        say: Callable[[LiveEvent], None],
    ) -> None:
        """`say` is called with the words of each piece, if they are asked for."""
        self._resident = resident
        self._scheduler = scheduler
        self._instance = instance
        self._options = options
        self._stats = stats
        self._say = say
        self._parts: list[RecognizedChunk] = []
        self._aligning: asyncio.Task[None] | None = None  # of the last piece; it waits for those before it

    def add(self, piece: Piece, parts: Sequence[RecognizedChunk]) -> None:
        """Take the parts of a piece that is recognised for good."""
        if self._options.words and any(part.recognition.text for part in parts):
            self._aligning = asyncio.create_task(self._align(self._aligning, piece, [*parts]))
        else:
            self._parts += [_kept(part, piece.origin) for part in parts]

    async def finish(self) -> list[RecognizedChunk]:
        """All parts, in order, with their places in the stream."""
        if self._aligning is not None:
            await self._aligning
        return self._parts

    async def close(self) -> None:
        """Cancel what runs."""
        if self._aligning is not None:
            self._aligning.cancel()
            await asyncio.wait({self._aligning})

    async def _align(self, before: asyncio.Task[None] | None, piece: Piece, parts: list[RecognizedChunk]) -> None:
        if before is not None:
            await before
        language = self._options.language or main_language(parts, piece.speech)
        alignment = Alignment(self._resident, self._scheduler, piece.speech, self._stats)
        with self._stats.measure("align"):
            parts = await alignment.align(self._instance, parts, language)
        origin_s = piece.origin / SAMPLE_RATE
        words = [
            LiveWord(part.recognition.text[word.begin : word.end], word.start_s + origin_s, word.end_s + origin_s)
            for part in parts
            if part.units is not None
            for word in words_of(part, piece.speech)
        ]
        if words:
            self._say(LiveEvent(words=tuple(words)))
        self._parts += [_kept(part, piece.origin) for part in parts]


def _kept(part: RecognizedChunk, origin: int) -> RecognizedChunk:
    """The part with its place in the stream, and without its sound: silence of the same length that takes no memory."""
    silence = np.broadcast_to(np.float32(0), part.chunk.samples.shape)
    return replace(part, chunk=Chunk(part.chunk.start + origin, silence))
