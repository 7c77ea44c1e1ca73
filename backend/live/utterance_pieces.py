"""The recognised pieces of a live stream, for its transcript, and the times of their words where they are asked for.

A piece is aligned behind its commit, in a task of its own, and pieces one after the other: neither captions nor sound
wait for the aligner, and words leave in order. Of a piece that is kept the sound is dropped.

Neither does the transcript wait beyond the deadline. It says how much speech was not recognised by then; without any
text there is an error instead, because an empty transcript claims that nobody speaks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from backend.audio.vad import Speech
from backend.audio.waveform import SAMPLE_RATE, Chunk, Decoded
from backend.errors import NothingInTime
from backend.live.final_deadline import FinalDeadline
from backend.live.live_event import LiveEvent, LiveWord
from backend.live.live_setup import LiveSetup
from backend.live.sound_window import Piece
from backend.pipeline.alignment import Alignment
from backend.pipeline.recognized_chunk import RecognizedChunk, main_language
from backend.pipeline.sound_tracks import SpokenTrack
from backend.pipeline.transcript_builder import Transcript, build_transcript, in_thread_if_long, words_of
from backend.process.request_warning import RequestWarning
from backend.thresholds import LIVE_FINAL_S

ALIGNED_LATE = RequestWarning("the aligner was not done in time", "aligner_late")
UNRECOGNIZED = (
    "{seconds:.1f} s of speech at the end were not recognised in time; use a smaller model, quantization int8, a "
    "longer live_step_seconds, or fewer streams"
)


class UtterancePieces:
    """For the event loop's thread."""

    def __init__(self, setup: LiveSetup, say: Callable[[LiveEvent], None], deadline: FinalDeadline) -> None:
        """`say` is called with the words of each piece, if they are asked for."""
        self._setup = setup
        self._deadline = deadline
        self._say = say
        self._parts: list[RecognizedChunk] = []
        self._spans: list[tuple[int, int]] = []  # the speech of the pieces, in samples of the stream
        self._aligning: asyncio.Task[None] | None = None  # of the last piece; it waits for those before it
        self._unaligned: list[tuple[int, list[RecognizedChunk]]] = []  # the pieces that wait, and where they begin
        self._unrecognized_s = 0.0

    def add(self, piece: Piece, parts: Sequence[RecognizedChunk]) -> None:
        """Take the parts of a piece that is recognised for good; none if it has no speech, or was not recognised."""
        chunk, speech, origin = piece
        if parts:
            self._spans += [(begin + origin, end + origin) for begin, end in speech.within(chunk.start, chunk.end)]
        if self._setup.options.words and any(part.recognition.text for part in parts):
            self._unaligned.append((origin, [*parts]))
            self._aligning = asyncio.create_task(self._align(self._aligning, piece, [*parts]))
        else:
            self._parts += [_kept(part, origin) for part in parts]

    def skip(self, speech_s: float) -> None:
        """So much speech behind all pieces that have text is not recognised."""
        self._unrecognized_s += speech_s

    async def transcript(self, duration_s: float) -> Transcript:
        """The transcript of all pieces, when none follows; `duration_s`: of the stream. Raises NothingInTime."""
        if self._aligning is not None:
            await self._finish_aligning(self._aligning)
        parts, options, load = self._parts, self._setup.options, self._setup.load
        nothing = np.zeros(0, np.float32)
        speech = Speech(tuple(self._spans), nothing, measured=load.vad)
        track = SpokenTrack(Decoded(nothing, duration_s), speech)
        language = options.language or main_language(parts, speech)
        told = await in_thread_if_long(duration_s, lambda: build_transcript(track, parts, language, load, options))
        if not self._unrecognized_s:
            return told
        if not told.text:
            raise NothingInTime(LIVE_FINAL_S)
        warning = RequestWarning(UNRECOGNIZED.format(seconds=self._unrecognized_s), "unrecognized")
        return replace(told, warnings=(*told.warnings, warning))

    async def _finish_aligning(self, aligning: asyncio.Task[None]) -> None:
        if await self._deadline.meets(aligning):
            await aligning  # raises what it raised
            return
        await self.close()
        for origin, parts in self._unaligned:
            self._parts += [_kept(replace(part, coarse_because=ALIGNED_LATE), origin) for part in parts]

    async def close(self) -> None:
        """Cancel what runs."""
        if self._aligning is not None:
            self._aligning.cancel()
            await asyncio.wait({self._aligning})

    async def _align(self, before: asyncio.Task[None] | None, piece: Piece, parts: list[RecognizedChunk]) -> None:
        if before is not None:
            await before
        setup = self._setup
        language = setup.options.language or main_language(parts, piece.speech)
        alignment = Alignment(setup.resident, setup.scheduler, piece.speech, setup.stats)
        with setup.stats.measure("align"):
            parts = await alignment.align(setup.instance, parts, language)
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
        self._unaligned.pop(0)


def _kept(part: RecognizedChunk, origin: int) -> RecognizedChunk:
    """The part with its place in the stream, and without its sound: silence of the same length that takes no memory."""
    silence = np.broadcast_to(np.float32(0), part.chunk.samples.shape)
    return replace(part, chunk=Chunk(part.chunk.start + origin, silence))
