"""The pipeline of one request: one recording in, one transcript out. No gRPC, no torch.

    decode -> detect speech -> split into chunks -> recognise -> align (if requested) -> join -> words -> segments

Rules: the text is the model's whole text (recognition.py). The aligner runs only if the request asks for times
(alignment.py). Words that it cannot time are spread over the speech, and a warning says so.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from math import inf
from typing import TypeAlias, TypeVar

from backend.audio.chunks import split
from backend.audio.decoding.pool import DecoderPool
from backend.audio.vad import Speech, SpeechRules, all_speech, detect
from backend.audio.waveform import Chunk, Samples
from backend.errors import DeadlineTooShort
from backend.options.load_options import LoadOptions, TranscribeOptions
from backend.pipeline.admission import Admission
from backend.pipeline.alignment import Alignment
from backend.pipeline.end_of_utterance import ends_utterance
from backend.pipeline.prompt import check_token_limit
from backend.pipeline.recognition import RecognitionPolicy
from backend.pipeline.recognized_chunk import RecognizedChunk, main_language
from backend.pipeline.sound_tracks import SpokenTrack, spoken_track
from backend.pipeline.streaming import StreamedRecognition
from backend.process.request_stats import RequestStats
from backend.serving.model_instance import Lean
from backend.serving.protocols import Token
from backend.serving.resident import Resident
from backend.serving.scheduler import Scheduler
from backend.thresholds import MAX_ALIGNED_CHUNK_S
from backend.transcript.joining import join
from backend.transcript.pauses import spans_for, trim_to_speech
from backend.transcript.segments import Segment, SegmentRules, merge
from backend.transcript.words import Word, place, spread

T = TypeVar("T")
Detect: TypeAlias = Callable[[Samples, SpeechRules], Awaitable[Speech]]

_THREAD_FROM_S = 60.0  # longer recordings are processed in a thread: their words would block the event loop

PASSAGES = "{count} passage(s) {fallback}"  # texts of recognized_chunk.py and alignment.py
COARSE = "some or all word times are not available ({cause}); segment times there are estimates"


@dataclass(frozen=True)
class Transcript:
    """The result of a request. `language`: a code, or "" without speech.

    `segments` are slices of `text`. `tokens` and `words` have one entry for each segment: the ids of its tokens, and
    its words, if they were requested, that the aligner timed. `warnings`: the parts of x-asr-warning. `eou`: the text
    ends an utterance, by the option live_eou.
    """

    text: str
    language: str
    duration_s: float
    segments: tuple[Segment, ...]
    tokens: tuple[tuple[int, ...], ...]
    words: tuple[tuple[Word, ...], ...]
    warnings: tuple[str, ...]
    eou: bool = False


@dataclass(frozen=True)
class _Passages:
    """A request whose recording is decoded and split."""

    instance: Lean
    options: TranscribeOptions
    stats: RequestStats
    track: SpokenTrack
    chunks: list[Chunk]
    scheduler: Scheduler

    @property
    def speech(self) -> Speech:
        return self.track.speech

    @property
    def policy(self) -> RecognitionPolicy:
        return RecognitionPolicy(self.scheduler, self.instance, self.options, self.speech, self.stats)


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
        instance = self._resident.current()
        with self._admission.admitted(stats):
            passages = await self._passages(path, instance, options, stats, deadline_s)
            with stats.measure("infer"):
                parts = await passages.policy.recognize(passages.chunks)
            return await self._transcript(passages, parts)

    async def stream(
        self, path: str, options: TranscribeOptions, stats: RequestStats | None = None, deadline_s: float = inf
    ) -> AsyncGenerator[str | Transcript]:
        """The text of the recording while it is decoded, then its transcript: the text pieces together are its text.

        Arguments and errors as in `transcribe`.
        """
        stats = stats or RequestStats()
        instance = self._resident.current()
        with self._admission.admitted(stats):
            passages = await self._passages(path, instance, options, stats, deadline_s)
            streamed = StreamedRecognition(passages.policy, instance, options, passages.speech, stats, passages.chunks)
            async with aclosing(streamed.deltas()) as deltas:
                async for delta in deltas:
                    yield delta
            yield await self._transcript(passages, streamed.recognized)

    async def _passages(
        self, path: str, instance: Lean, options: TranscribeOptions, stats: RequestStats, deadline_s: float
    ) -> _Passages:
        """The recording, decoded and split. Refuses what cannot be transcribed."""
        load = instance.options
        await check_token_limit(options.prompt, instance.recognizer)
        track = await spoken_track(
            path,
            self._decoder_pool,
            lambda samples: self._speech(samples, load),
            stats,
            max_audio_s=load.max_audio_s,
            reserve=lambda audio_s: self._admission.reserve(stats, audio_s),
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
        return _Passages(instance, options, stats, track, chunks, self._scheduler)

    async def _transcript(self, passages: _Passages, parts: list[RecognizedChunk]) -> Transcript:
        speech, options = passages.speech, passages.options
        language = options.language or main_language(parts, speech)
        if options.times:
            alignment = Alignment(self._resident, self._scheduler, speech, passages.stats)
            with passages.stats.measure("align"):
                parts = await alignment.align(passages.instance, parts, language)
        return await in_thread_if_long(
            passages.track.recording.duration_s,
            lambda: build_transcript(passages.track, parts, language, passages.instance.options, options),
        )

    async def _speech(self, samples: Samples, load: LoadOptions) -> Speech:
        if not load.vad:
            return all_speech(samples)
        return await self._detect(
            samples, SpeechRules(load.vad_threshold, load.vad_min_speech_s, load.vad_min_silence_s)
        )


async def in_thread_if_long(duration_s: float, work: Callable[[], T]) -> T:
    """The result of `work` on a recording of `duration_s` seconds; in a thread if the recording is over a minute long.

    For an hour of words the work would delay Health. For a minute, the way to a thread and back takes longer than the
    work.
    """
    return work() if duration_s <= _THREAD_FROM_S else await asyncio.to_thread(work)


def build_transcript(
    track: SpokenTrack,
    parts: list[RecognizedChunk],
    language: str,
    load: LoadOptions,
    options: TranscribeOptions,
) -> Transcript:
    """The chunks' texts, words and warnings as one transcript. `load` and `options` have the rules of its segments."""
    recording, speech = track.recording, track.speech
    text, offsets = join([part.recognition.text for part in parts])
    words = [word.shifted(by) for part, by in zip(parts, offsets, strict=True) for word in words_of(part, speech)]
    rules = SegmentRules(load.segment_gap_s, load.max_segment_s, load.max_segment_chars)
    languages = [(by, part.recognition.language or language) for part, by in zip(parts, offsets, strict=True)]
    segments = tuple(merge(text, words, rules, languages))
    tokens = [
        Token(token.id, token.begin + by, token.end + by)
        for part, by in zip(parts, offsets, strict=True)
        for token in part.recognition.tokens
    ]
    timed = [
        (by, by + len(part.recognition.text)) for part, by in zip(parts, offsets, strict=True) if part.units is not None
    ]
    return Transcript(
        text,
        language,
        recording.duration_s,
        segments,
        tuple(_token_ids(segment, tokens) for segment in segments),
        tuple(_words_inside(segment, timed) if options.words else () for segment in segments),
        tuple(_warnings(track, parts, segments)),
        ends_utterance(text, load.live_eou),
    )


def words_of(part: RecognizedChunk, speech: Speech) -> list[Word]:
    """The words of a chunk, with the aligner's times or with estimates, in seconds of the recording."""
    chunk, text = part.chunk, part.recognition.text
    spoken = speech.within_s(chunk.start, chunk.end)
    if part.units is None:
        return spread(text, spans_for(text, spoken, (chunk.start_s, chunk.end_s)))
    units = [(unit.text, unit.start_s + chunk.start_s, unit.end_s + chunk.start_s) for unit in part.units]
    return trim_to_speech(text, place(text, units, start_s=chunk.start_s, end_s=chunk.end_s), spoken)


def _words_inside(segment: Segment, spans: list[tuple[int, int]]) -> tuple[Word, ...]:
    """The segment's words that lie in one of the sorted `spans` of the text."""
    begins = [begin for begin, _ in spans]
    return tuple(
        word for word in segment.words if (at := bisect_right(begins, word.begin)) and word.end <= spans[at - 1][1]
    )


def _token_ids(segment: Segment, tokens: list[Token]) -> tuple[int, ...]:
    """The ids of the tokens that overlap the segment."""
    first = bisect_right(tokens, segment.begin, key=lambda token: token.end)
    last = bisect_left(tokens, segment.end, key=lambda token: token.begin)
    return tuple(token.id for token in tokens[first:last])


def _warnings(track: SpokenTrack, parts: list[RecognizedChunk], segments: tuple[Segment, ...]) -> Iterator[str]:
    yield from track.warnings()
    for fallback, count in sorted(Counter(fallback for part in parts for fallback in part.fallbacks).items()):
        yield PASSAGES.format(count=count, fallback=fallback)
    causes = sorted({part.coarse_because for part in parts if part.recognition.text} - {""})
    if causes and segments:
        yield COARSE.format(cause=", ".join(causes))
