"""The data's way, top to bottom: one recording in, one transcript out. No gRPC, no torch.

    decode -> chunks -> recognise -> join -> align (if asked) -> words -> segments

Laws kept here: the text is the model's text, whole (a chunk that did not end is split and done again); times are
asked of the aligner only when the request wants them; what the aligner cannot give is spread honestly and said so.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left
from collections import Counter
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from backend.audio.chunks import halves, split
from backend.audio.decode import Decoded, decode
from backend.audio.waveform import Chunk
from backend.engine.recognizer import AlignedUnit, Passage, Recognition, Token, Utterance
from backend.engine.resident import Equipped, Lean, Resident
from backend.engine.scheduler import Scheduler
from backend.errors import AlignerUnavailable, EngineFailure, OutOfMemory
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
COARSE = "word times are not available ({cause}); segment times are estimates"


@dataclass(frozen=True)
class Transcript:
    """What was said and when. `language`: a code, "" if nobody spoke.

    `segments` are slices of `text`; `tokens` holds the token ids of each. `has_words`: the segments' words carry the
    aligner's times and were asked for.
    """

    text: str
    language: str
    duration_s: float
    segments: tuple[Segment, ...]
    tokens: tuple[tuple[int, ...], ...]
    has_words: bool
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Heard:
    """A chunk and what was recognised in it."""

    chunk: Chunk
    recognition: Recognition


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
        warnings = [TRUNCATED] if recording.truncated else []
        if not all(part.recognition.finished for part in heard):
            warnings.append(UNFINISHED)
        language = _main_language(heard, options)
        timed, cause = await self._timed(instance, heard, language, options)
        if cause and options.times:
            _log.info("coarse times: %s", cause)
            warnings.append(COARSE.format(cause=cause))
        has_words = options.words and not cause
        # in a thread, too: an hour of words takes long enough to make Health late
        return await asyncio.to_thread(
            _told, recording, heard, timed, language, instance.options, has_words, tuple(warnings)
        )

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

    async def _timed(
        self, instance: Lean, heard: list[_Heard], language: str, options: TranscribeOptions
    ) -> tuple[list[list[Word]], str]:
        """Each chunk's words with their times, and why they are coarse ("" if the aligner gave them)."""
        spoken = [part for part in heard if part.recognition.text]
        coarse = [_spread(part) for part in heard]
        if not options.times or not spoken:
            return coarse, "" if not spoken else "not asked for"
        languages = {part.recognition.language or language for part in spoken}
        if not languages <= ALIGNABLE:
            return coarse, "the aligner does not know the language"
        try:
            equipped = await self._resident.equipped(instance)
            return await _all(self._align(equipped, part, language) for part in heard), ""
        except AlignerUnavailable as error:
            return coarse, str(error)
        except (EngineFailure, OutOfMemory):
            return coarse, "the aligner failed"

    async def _align(self, equipped: Equipped, part: _Heard, language: str) -> list[Word]:
        chunk, recognition = part.chunk, part.recognition
        if not recognition.text:
            return []
        passage = Passage(chunk.samples, recognition.text, recognition.language or language)
        units = await self._scheduler.submit(
            equipped.aligner.align, passage, seconds=chunk.duration_s, most=equipped.options.batch_max_size
        )
        shifted_units = (AlignedUnit(u.text, u.start_s + chunk.start_s, u.end_s + chunk.start_s) for u in units)
        return place(recognition.text, shifted_units, start_s=chunk.start_s, end_s=chunk.end_s)


async def _all(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all, in order; as soon as one fails the others are cancelled."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _spread(part: _Heard) -> list[Word]:
    return spread(part.recognition.text, start_s=part.chunk.start_s, end_s=part.chunk.end_s)


def _main_language(heard: list[_Heard], options: TranscribeOptions) -> str:
    """The language that was forced, or the one in which most of the text was said; "" if nothing was."""
    written: Counter[str] = Counter()
    for part in heard:
        if part.recognition.language and part.recognition.text:
            written[part.recognition.language] += part.chunk.samples.size
    if not any(part.recognition.text for part in heard):
        return options.language or ""
    return options.language or (written.most_common(1)[0][0] if written else "")


def _told(
    recording: Decoded,
    heard: list[_Heard],
    timed: list[list[Word]],
    language: str,
    load: LoadOptions,
    has_words: bool,
    warnings: tuple[str, ...],
) -> Transcript:
    """The chunks' texts and words as one transcript."""
    text, offsets = join([part.recognition.text for part in heard])
    words = [word.shifted(by) for chunk_words, by in zip(timed, offsets, strict=True) for word in chunk_words]
    rules = SegmentRules(load.segment_gap_s, load.max_segment_s, load.max_segment_chars)
    segments = tuple(merge(text, words, rules))
    written = [
        Token(token.id, token.begin + by, token.end + by)
        for part, by in zip(heard, offsets, strict=True)
        for token in part.recognition.tokens
    ]
    tokens = tuple(_token_ids(segment, written) for segment in segments)
    return Transcript(text, language, recording.duration_s, segments, tokens, has_words, warnings)


def _token_ids(segment: Segment, tokens: list[Token]) -> tuple[int, ...]:
    """The ids of the tokens that write the segment: those that end inside it, or the one that covers it all."""
    first = bisect_left(tokens, segment.begin + 1, key=lambda token: token.end)
    last = bisect_left(tokens, segment.end, key=lambda token: token.begin)
    return tuple(token.id for token in tokens[first:last])
