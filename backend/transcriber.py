"""The data's way, top to bottom: one recording in, one transcript out. No gRPC, no torch.

    decode -> chunks -> recognise -> join -> align (if asked) -> words -> segments

Laws kept here: the text is the model's text, whole (a chunk that did not end is split and done again); times are
asked of the aligner only when the request wants them; what the aligner cannot give is spread honestly and said so.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Coroutine, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from backend.audio.chunks import halves, split
from backend.audio.decode import Decoded, decode
from backend.audio.waveform import Chunk
from backend.engine.recognizer import AlignedUnit, Passage, Recognition, Token, Utterance
from backend.engine.resident import Equipped, Lean, Resident
from backend.engine.scheduler import Scheduler
from backend.errors import AlignerUnavailable, EngineFailure, OutOfMemory, Overloaded
from backend.languages import ALIGNABLE
from backend.options import LoadOptions, TranscribeOptions
from backend.transcript.joining import join
from backend.transcript.segments import Segment, SegmentRules, merge
from backend.transcript.words import Word, place, spread

_log = logging.getLogger(__name__)
T = TypeVar("T")

# The fastest speech is about 7 tokens a second in Qwen's vocabulary, rare names and numbers more; the constant is for
# the language tag and the punctuation of a very short clip. An answer that needs more is a loop, or is done in halves.
_TOKENS_PER_SECOND, _TOKENS_AT_LEAST = 12, 32
_SHORTEST_SPLIT_S = 2.0  # halves of less than a second hold no sentence; what still does not end there is a loop

UNFINISHED = "a passage did not end within its token budget; its text may be incomplete"
TRUNCATED = "the audio file ends early or is damaged; what could be decoded was transcribed"
COARSE = "some or all word times are not available ({cause}); segment times there are estimates"
UNKNOWN_TO_ALIGNER = "the aligner does not know the language"


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


@dataclass(frozen=True)
class _Heard:
    """A chunk, what was recognised in it, and the aligner's units of it (seconds from its start), if it gave any."""

    chunk: Chunk
    recognition: Recognition
    units: list[AlignedUnit] | None = None
    coarse_because: str = ""


class Transcriber:
    """Transcribes recordings with whatever model is resident."""

    def __init__(self, resident: Resident, scheduler: Scheduler) -> None:
        self._resident = resident
        self._scheduler = scheduler

    async def transcribe(self, path: str, options: TranscribeOptions) -> Transcript:
        """The transcript of the recording at `path`. Raises any AsrError but LoadRefused."""
        instance = self._resident.current()
        recording = await asyncio.to_thread(decode, path, max_seconds=instance.options.max_audio_s)
        chunks = await asyncio.to_thread(split, recording.samples, max_s=instance.options.max_chunk_s)
        heard = [part for parts in await _all(self._hear(instance, c, options) for c in chunks) for part in parts]
        language = _main_language(heard, options)
        if options.times:
            heard = await self._aligned(instance, heard, language)
        # in a thread: an hour of words takes long enough to make Health late
        return await asyncio.to_thread(_told, recording, heard, language, instance.options, options)

    async def _hear(self, instance: Lean, chunk: Chunk, options: TranscribeOptions) -> list[_Heard]:
        """The chunk's text; in halves, and theirs, where its budget ends before the model does."""
        load = instance.options
        budget = _TOKENS_AT_LEAST + round(_TOKENS_PER_SECOND * chunk.duration_s)
        utterance = Utterance(
            chunk.samples, options.language, options.prompt, min(budget, load.max_new_tokens or budget)
        )
        recognition = await self._scheduler.submit(
            instance.recognizer.recognize, utterance, seconds=chunk.duration_s, most=load.batch_max_size
        )
        if recognition.finished or chunk.duration_s < _SHORTEST_SPLIT_S:
            return [_Heard(chunk, recognition)]
        _log.info("a chunk of %.1f s did not end within its token budget; split and done again", chunk.duration_s)
        parts = await _all(self._hear(instance, half, options) for half in halves(chunk))
        return [part for half in parts for part in half]

    async def _aligned(self, instance: Lean, heard: list[_Heard], language: str) -> list[_Heard]:
        """The parts with the aligner's units, or with the reason why there are none."""
        if not any((part.recognition.language or language) in ALIGNABLE for part in heard if part.recognition.text):
            return [replace(part, coarse_because=UNKNOWN_TO_ALIGNER) for part in heard]
        try:
            equipped = await self._resident.equipped(instance)
        except AlignerUnavailable as unavailable:
            return [replace(part, coarse_because=str(unavailable)) for part in heard]
        return await _all(self._align(equipped, part, language) for part in heard)

    async def _align(self, equipped: Equipped, part: _Heard, language: str) -> _Heard:
        spoken = part.recognition.language or language
        if not part.recognition.text:
            return part
        if spoken not in ALIGNABLE:
            return replace(part, coarse_because=UNKNOWN_TO_ALIGNER)
        passage = Passage(part.chunk.samples, part.recognition.text, spoken)
        try:
            units = await self._scheduler.submit(
                equipped.aligner.align,
                passage,
                seconds=part.chunk.duration_s,
                most=equipped.options.batch_max_size,
            )
        except (EngineFailure, OutOfMemory, Overloaded):  # the text is worth more than its times
            return replace(part, coarse_because="the aligner failed")
        return replace(part, units=units)


async def _all(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all, in order; as soon as one fails the others are cancelled."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _main_language(heard: list[_Heard], options: TranscribeOptions) -> str:
    """The language that was forced, or the one in which most was said; "" if nothing was."""
    spoken: Counter[str] = Counter()
    for part in heard:
        if part.recognition.language and part.recognition.text:
            spoken[part.recognition.language] += part.chunk.samples.size
    return options.language or (spoken.most_common(1)[0][0] if spoken else "")


def _told(
    recording: Decoded, heard: list[_Heard], language: str, load: LoadOptions, options: TranscribeOptions
) -> Transcript:
    """The chunks' texts, words and warnings as one transcript."""
    text, offsets = join([part.recognition.text for part in heard])
    words = [word.shifted(by) for part, by in zip(heard, offsets, strict=True) for word in _words(part)]
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


def _words(part: _Heard) -> list[Word]:
    """The words of a chunk's text, with the aligner's times or with estimates. Seconds of the recording."""
    chunk, text = part.chunk, part.recognition.text
    if part.units is None:
        return spread(text, start_s=chunk.start_s, end_s=chunk.end_s)
    units = [(unit.text, unit.start_s + chunk.start_s, unit.end_s + chunk.start_s) for unit in part.units]
    return place(text, units, start_s=chunk.start_s, end_s=chunk.end_s)


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


def _warnings(recording: Decoded, heard: list[_Heard], segments: tuple[Segment, ...]) -> Iterator[str]:
    if recording.truncated:
        yield TRUNCATED
    if not all(part.recognition.finished for part in heard):
        yield UNFINISHED
    causes = sorted({part.coarse_because for part in heard if part.recognition.text} - {""})
    if causes and segments:
        yield COARSE.format(cause=", ".join(causes))
