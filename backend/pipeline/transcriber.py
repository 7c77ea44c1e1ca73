"""The data's way, top to bottom: one recording in, one transcript out. No gRPC, no torch.

    decode -> speech -> chunks -> hear -> align (if asked) -> join -> words -> segments

Laws kept here: the text is the model's text, whole (recognition.py); times are asked of the aligner only when the
request wants them (pipeline/alignment.py); what the aligner cannot give is spread over the speech and said so.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from math import inf
from typing import TypeAlias, TypeVar

from backend.audio.chunks import split
from backend.audio.decoding.pool import DecoderPool
from backend.audio.vad import Speech, SpeechRules, all_speech, detect
from backend.audio.waveform import SAMPLE_RATE, Decoded, Samples
from backend.errors import DeadlineTooShort
from backend.options import LoadOptions, TranscribeOptions
from backend.pipeline.admission import Admission
from backend.pipeline.alignment import Alignment
from backend.pipeline.prompt import check_token_limit
from backend.pipeline.recognition import RecognitionPolicy, RecognizedChunk, main_language
from backend.process.request_stats import RequestStats
from backend.serving.protocols import Token
from backend.serving.resident import Lean, Resident
from backend.serving.scheduler import Scheduler
from backend.transcript.joining import join
from backend.transcript.pauses import spans_for, trim_to_speech
from backend.transcript.segments import Segment, SegmentRules, merge
from backend.transcript.words import Word, place, spread

T = TypeVar("T")
Detect: TypeAlias = Callable[[Samples, SpeechRules], Awaitable[Speech]]

_LONGEST_ALIGNED_S = 60.0  # where the aligner is at its best; it is unreliable beyond 270 s

_SHORT_S = 60.0

TRUNCATED = "the audio file ends early or is damaged; what could be decoded was transcribed"
PASSAGES = "{count} passage(s) {remedy}"  # see pipeline/recognition.py and pipeline/alignment.py
COARSE = "some or all word times are not available ({cause}); segment times there are estimates"


@dataclass(frozen=True)
class Transcript:
    """What was said and when. `language`: a code, "" if nobody spoke.

    `segments` are slices of `text`. Beside each stand the ids of its `tokens`, and its `words`: those that were asked
    for and that the aligner timed.
    """

    text: str
    language: str
    duration_s: float
    segments: tuple[Segment, ...]
    tokens: tuple[tuple[int, ...], ...]
    words: tuple[tuple[Word, ...], ...]
    warnings: tuple[str, ...]


class Transcriber:
    """Transcribes recordings with whatever model is resident."""

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
        self, path: str, options: TranscribeOptions, stats: RequestStats | None = None, until_s: float = inf
    ) -> Transcript:
        """The transcript of the recording at `path`. Raises any AsrError but LoadRefused.

        `stats` has its cost. `until_s`: when its client will have gone, by time.monotonic().
        """
        stats = stats or RequestStats()
        instance = self._resident.current()
        with self._admission.admitted(stats):
            return await self._transcript(path, instance, options, stats, until_s)

    async def _transcript(
        self, path: str, instance: Lean, options: TranscribeOptions, stats: RequestStats, until_s: float
    ) -> Transcript:
        load = instance.options
        await check_token_limit(options.prompt, instance.recognizer)
        with stats.measure("decode"):
            recording = await self._decoder_pool.decode(path, max_seconds=load.max_audio_s)
        self._admission.hold(stats, recording.samples.size / SAMPLE_RATE)
        stats.audio_s = recording.duration_s
        longest_s = min(load.max_chunk_s, _LONGEST_ALIGNED_S) if options.times else load.max_chunk_s
        with stats.measure("vad"):
            speech = await self._speech(recording.samples, load)
            chunks = await in_thread_if_long(
                recording.duration_s,
                lambda: split(recording.samples, max_s=longest_s, speech=speech, margin_s=load.vad_margin_s),
            )
        if self._scheduler.at_least_s(sum(chunk.duration_s for chunk in chunks)) > until_s - time.monotonic():
            raise DeadlineTooShort
        with stats.measure("infer"):
            heard = await RecognitionPolicy(self._scheduler, instance, options, speech, stats).hear(chunks)
        language = options.language or main_language(heard, speech)
        if options.times:
            alignment = Alignment(self._resident, self._scheduler, speech, stats)
            with stats.measure("align"):
                heard = await alignment.align(instance, heard, language)
        return await in_thread_if_long(
            recording.duration_s, lambda: build_transcript(recording, speech, heard, language, load, options)
        )

    async def _speech(self, samples: Samples, load: LoadOptions) -> Speech:
        if not load.vad:
            return all_speech(samples)
        return await self._detect(
            samples, SpeechRules(load.vad_threshold, load.vad_min_speech_s, load.vad_min_silence_s)
        )


async def in_thread_if_long(duration_s: float, work: Callable[[], T]) -> T:
    """What `work` does for a recording of that length, in a thread if it would make Health late.

    An hour of words takes that long. For a minute, going to a thread and coming back is the longest part.
    """
    return work() if duration_s <= _SHORT_S else await asyncio.to_thread(work)


def build_transcript(
    recording: Decoded,
    speech: Speech,
    heard: list[RecognizedChunk],
    language: str,
    load: LoadOptions,
    options: TranscribeOptions,
) -> Transcript:
    """The chunks' texts, words and warnings as one transcript."""
    text, offsets = join([part.recognition.text for part in heard])
    words = [word.shifted(by) for part, by in zip(heard, offsets, strict=True) for word in _words(part, speech)]
    segments = tuple(merge(text, words, SegmentRules(load.segment_gap_s, load.max_segment_s, load.max_segment_chars)))
    written = [
        Token(token.id, token.begin + by, token.end + by)
        for part, by in zip(heard, offsets, strict=True)
        for token in part.recognition.tokens
    ]
    timed = [
        (by, by + len(part.recognition.text)) for part, by in zip(heard, offsets, strict=True) if part.units is not None
    ]
    return Transcript(
        text,
        language,
        recording.duration_s,
        segments,
        tuple(_token_ids(segment, written) for segment in segments),
        tuple(_words_inside(segment, timed) if options.words else () for segment in segments),
        tuple(_warnings(recording, heard, segments)),
    )


def _words(part: RecognizedChunk, speech: Speech) -> list[Word]:
    """The words of a chunk's text, with the aligner's times or with estimates. Seconds of the recording."""
    chunk, text = part.chunk, part.recognition.text
    spoken = speech.within_s(chunk.start, chunk.end)
    if part.units is None:
        return spread(text, spans_for(text, spoken, (chunk.start_s, chunk.end_s)))
    units = [(unit.text, unit.start_s + chunk.start_s, unit.end_s + chunk.start_s) for unit in part.units]
    return trim_to_speech(text, place(text, units, start_s=chunk.start_s, end_s=chunk.end_s), spoken)


def _words_inside(segment: Segment, spans: list[tuple[int, int]]) -> tuple[Word, ...]:
    """The segment's words that lie in one of the spans of the text, which are in order."""
    begins = [begin for begin, _ in spans]
    return tuple(
        word for word in segment.words if (at := bisect_right(begins, word.begin)) and word.end <= spans[at - 1][1]
    )


def _token_ids(segment: Segment, tokens: list[Token]) -> tuple[int, ...]:
    """The ids of the tokens that write the segment: those that reach into it, or the one that covers it all."""
    first = bisect_right(tokens, segment.begin, key=lambda token: token.end)
    last = bisect_left(tokens, segment.end, key=lambda token: token.begin)
    return tuple(token.id for token in tokens[first:last])


def _warnings(recording: Decoded, heard: list[RecognizedChunk], segments: tuple[Segment, ...]) -> Iterator[str]:
    if recording.truncated:
        yield TRUNCATED
    for remedy, count in sorted(Counter(remedy for part in heard for remedy in part.remedies).items()):
        yield PASSAGES.format(count=count, remedy=remedy)
    causes = sorted({part.coarse_because for part in heard if part.recognition.text} - {""})
    if causes and segments:
        yield COARSE.format(cause=", ".join(causes))
