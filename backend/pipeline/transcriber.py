"""The pipeline of one request: one recording in, one transcript out. No gRPC, no torch.

    decode -> detect speech -> split into chunks -> recognise -> align (if requested) -> join -> words -> segments

Rules: the text is the model's whole text (recognition.py). The aligner runs only if the request asks for times
(alignment.py). Words that it cannot time are spread over the speech, and a warning says so. Where the request brings a
text whose times it wants, known_text/ takes the place of what follows the chunks.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from math import inf
from typing import TypeAlias

from backend.audio.chunks import split
from backend.audio.decoding.pool import DecoderPool
from backend.audio.vad import Speech, SpeechRules, all_speech, detect
from backend.audio.waveform import Chunk, Samples
from backend.errors import DeadlineTooShort, NoKnownText
from backend.options.load_options import LoadOptions, TranscribeOptions
from backend.pipeline.admission import Admission, AudioMemory
from backend.pipeline.alignment import Alignment
from backend.pipeline.known_text.known_text_aligner import KnownTextAligner
from backend.pipeline.known_text.known_transcript import line_deltas
from backend.pipeline.prompt import check_token_limit
from backend.pipeline.recognition import RecognitionPolicy
from backend.pipeline.recognized_chunk import RecognizedChunk, main_language
from backend.pipeline.sound_tracks import SpokenTrack, spoken_track
from backend.pipeline.streaming import StreamedRecognition
from backend.pipeline.transcript_builder import Transcript, build_transcript, in_thread_if_long
from backend.process.request_stats import RequestStats
from backend.serving.model_instance import AlignerAlone, Instance, Lean
from backend.serving.resident import Resident
from backend.serving.scheduler import Scheduler
from backend.thresholds import MAX_ALIGNED_CHUNK_S

Detect: TypeAlias = Callable[[Samples, SpeechRules], Awaitable[Speech]]


@dataclass(frozen=True)
class _Passages:
    """A request whose recording is decoded and split."""

    options: TranscribeOptions
    stats: RequestStats
    track: SpokenTrack
    chunks: list[Chunk]

    @property
    def speech(self) -> Speech:
        return self.track.speech


class Transcriber:
    """Transcribes recordings with the resident model."""

    def __init__(
        self,
        resident: Resident,
        scheduler: Scheduler,
        decoder_pool: DecoderPool,
        detect: Detect = detect,
        admission: Admission | None = None,
    ) -> None:
        self._resident = resident
        self._scheduler = scheduler
        self._decoder_pool = decoder_pool
        self._detect = detect
        self._admission = admission or Admission()

    async def transcribe(
        self, path: str, options: TranscribeOptions, stats: RequestStats | None = None, deadline_s: float = inf
    ) -> Transcript:
        """The transcript of the recording at `path`. Raises any AsrError but LoadRefused.

        `stats` is filled with the request's cost. `deadline_s`: the client's deadline, in seconds of time.monotonic().
        """
        stats = stats or RequestStats()
        with self._admission.admitted(stats), self._resident.usage.model():
            instance = await self._resident.acquired()
            passages = await self._passages(path, instance, options, stats, deadline_s)
            if options.known_text is not None:
                return await self._known_transcript(instance, passages, options.known_text)
            lean = _with_recognizer(instance)
            with stats.measure("infer"):
                parts = await self._policy(lean, passages).recognize(passages.chunks)
            return await self._transcript(lean, passages, parts)

    async def stream(
        self, path: str, options: TranscribeOptions, stats: RequestStats | None = None, deadline_s: float = inf
    ) -> AsyncGenerator[str | Transcript]:
        """The text of the recording while it is decoded, then its transcript: the text pieces together are its text.

        Arguments and errors as in `transcribe`.
        """
        stats = stats or RequestStats()
        with self._admission.admitted(stats), self._resident.usage.model():
            instance = await self._resident.acquired()
            passages = await self._passages(path, instance, options, stats, deadline_s)
            if options.known_text is not None:
                transcript = await self._known_transcript(instance, passages, options.known_text)
                for delta in line_deltas(transcript):
                    yield delta
                yield transcript
                return
            lean = _with_recognizer(instance)
            policy = self._policy(lean, passages)
            streamed = StreamedRecognition(policy, lean, options, passages.speech, stats, passages.chunks)
            async with aclosing(streamed.deltas()) as deltas:
                async for delta in deltas:
                    yield delta
            yield await self._transcript(lean, passages, streamed.recognized)

    def _policy(self, lean: Lean, passages: _Passages) -> RecognitionPolicy:
        return RecognitionPolicy(self._scheduler, lean, passages.options, passages.speech, passages.stats)

    async def _known_transcript(self, instance: Instance, passages: _Passages, text: str) -> Transcript:
        aligner = KnownTextAligner(self._resident, self._scheduler, passages.options, passages.stats)
        return await aligner.transcript(instance, passages.track, passages.chunks, text)

    async def _passages(
        self, path: str, instance: Instance, options: TranscribeOptions, stats: RequestStats, deadline_s: float
    ) -> _Passages:
        """The recording, decoded and split. Refuses what cannot be transcribed."""
        load = instance.options
        if options.known_text is None:
            await check_token_limit(options.prompt, _with_recognizer(instance).recognizer)
        track = await spoken_track(
            path,
            self._decoder_pool,
            lambda samples: self._speech(samples, load),
            stats,
            max_audio_s=load.max_audio_s,
            memory=AudioMemory(self._admission, stats, load.max_audio_memory_bytes),
        )
        recording, speech = track.recording, track.speech
        max_chunk_s = min(instance.max_chunk_s, MAX_ALIGNED_CHUNK_S) if options.times else instance.max_chunk_s
        with stats.measure("vad"):
            chunks = await in_thread_if_long(
                recording.duration_s,
                lambda: split(recording.samples, max_s=max_chunk_s, speech=speech, margin_s=load.vad_margin_s),
            )
        if self._scheduler.min_duration_s(sum(chunk.duration_s for chunk in chunks)) > deadline_s - time.monotonic():
            raise DeadlineTooShort
        return _Passages(options, stats, track, chunks)

    async def _transcript(self, lean: Lean, passages: _Passages, parts: list[RecognizedChunk]) -> Transcript:
        speech, options = passages.speech, passages.options
        language = options.language or main_language(parts, speech)
        if options.times:
            alignment = Alignment(self._resident, self._scheduler, speech, passages.stats)
            with passages.stats.measure("align"):
                parts = await alignment.align(lean, parts, language)
        return await in_thread_if_long(
            passages.track.recording.duration_s,
            lambda: build_transcript(passages.track, parts, language, lean.options, options),
        )

    async def _speech(self, samples: Samples, load: LoadOptions) -> Speech:
        if not load.vad:
            return all_speech(samples)
        return await self._detect(samples, SpeechRules.of(load))


def _with_recognizer(instance: Instance) -> Lean:
    """Raises NoKnownText where there is only an aligner, which the text of a request would have to be known for."""
    if isinstance(instance, AlignerAlone):
        raise NoKnownText
    return instance
