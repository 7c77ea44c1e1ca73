"""Retry and fallback policy of one chunk: detects answers that cannot be right, and recognises the chunk again.

What can be wrong with an answer, and the fallback for it:

- a repetition loop, or an answer truncated by its token budget: the two halves of the chunk, cut at its deepest pause;
  after a loop with a repetition penalty that grows; a loop that outlives this is collapsed to its phrase, once;
- too little text for its speech: the halves;
- no text for its speech: the recording's language, then the halves;
- another language than the rest (language_consistency.py): the recording's language;
- prompt leakage, a hallucination that recites the prompt: the same chunk without the prompt.

Rules: text is never shortened silently: of two answers the longer is kept, unless only the shorter one is complete.
Where a detector found no speech the model is not run, because it hallucinates text there. Every fallback is counted in
the request's warnings and in its log line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Iterable, Sequence
from dataclasses import replace
from typing import Any

from backend.audio.chunks import halves
from backend.audio.vad import Speech
from backend.audio.waveform import Chunk
from backend.options.load_options import TranscribeOptions
from backend.pipeline.decode_settings import NOTHING_KNOWN, DecodeSettings, FirstRun
from backend.pipeline.language_consistency import NOTHING_BEFORE, LanguageHistory, contradicting, likelier
from backend.pipeline.recognized_chunk import (
    NO_SPEECH,
    NO_TEXT,
    OTHER_LANGUAGE,
    PROMPT_LEAKAGE,
    REPETITION_LOOP,
    STILL_NO_TEXT,
    TOO_LITTLE_TEXT,
    TRUNCATED_ANSWER,
    RecognizedChunk,
    finalized,
    is_doubtful_speech,
    is_too_fast,
    letter_count,
    main_language,
    with_fallbacks,
)
from backend.process.gathering import gather_or_cancel
from backend.process.request_stats import RequestStats
from backend.serving.model_instance import Lean
from backend.serving.protocols import Recognition, Utterance
from backend.serving.scheduler import Scheduler
from backend.serving.session_kind import SessionKind
from backend.thresholds import (
    MIN_LOOP_RETRY_SHARE,
    MIN_RECOGNIZED_SPEECH_S,
    MIN_RETRIED_SPEECH_S,
    MIN_SPLIT_S,
    MIN_TEXT_CHECK_S,
    MIN_TEXT_LETTERS_PER_S,
    MIN_TOKEN_BUDGET,
    REPETITION_PENALTIES,
    TOKEN_BUDGET_PER_S,
)
from backend.transcript.leakage import is_prompt_leakage
from backend.transcript.matching import fold


class RecognitionPolicy:
    """Recognises the chunks of one request."""

    def __init__(
        self,
        scheduler: Scheduler,
        instance: Lean,
        options: TranscribeOptions,
        speech: Speech,
        stats: RequestStats,
        kind: SessionKind[Utterance, Recognition] | None = None,
    ) -> None:
        """`kind`: of the instance's sessions; None: those for files."""
        self._scheduler = scheduler
        self._instance = instance
        self._kind = kind or instance.recognition
        self._settings = DecodeSettings(options.language, options.prompt)
        self._speech = speech
        self._stats = stats

    async def recognize(self, chunks: Iterable[Chunk]) -> list[RecognizedChunk]:
        """The recognised chunks, in order; a chunk that was split is replaced by its pieces.

        Raises OutOfMemory or EngineFailure.
        """
        pieces = await gather_or_cancel(self.first_answer(chunk) for chunk in chunks)
        language, doubted = self._context(pieces)
        return await self._retried([part for of_chunk in pieces for part in of_chunk], language, doubted)

    async def first_answer(self, chunk: Chunk, run: FirstRun = NOTHING_KNOWN) -> list[RecognizedChunk]:
        """A chunk with every fallback but those that need the recording's language."""
        return await self._recognize_chunk(chunk, self._settings, run)

    async def provisional_answer(self, chunk: Chunk, run: FirstRun, *, is_final: bool) -> Recognition:
        """The model's answer alone, without any fallback. `is_final`: False if the chunk will come again, grown."""
        return await self._recognize_once(chunk, self._settings, run, is_final=is_final)

    async def in_context(
        self,
        first: list[RecognizedChunk],
        before: LanguageHistory = NOTHING_BEFORE,
        later: Sequence[list[RecognizedChunk]] = (),
    ) -> list[RecognizedChunk]:
        """The pieces of a chunk, whose first answer is `first`, with the fallbacks that need the recording's language.

        The recording's language is taken from these, from `before`, and from the first answers for chunks after it.
        """
        language, doubted = self._context([first, *later], before)
        return await self._retried(first, language, doubted)

    async def _retried(
        self, parts: list[RecognizedChunk], language: str, doubted: Collection[int]
    ) -> list[RecognizedChunk]:
        """The parts after the fallbacks that need the recording's language. `doubted`: numbers of parts."""
        if not doubted and all(part.recognition.text for part in parts):
            return parts
        return await _gather_flat(
            self._in_context(part, language, number in doubted) for number, part in enumerate(parts)
        )

    def _context(
        self, pieces: Sequence[list[RecognizedChunk]], before: LanguageHistory = NOTHING_BEFORE
    ) -> tuple[str, Collection[int]]:
        """The recording's language, and the numbers of the pieces that contradict it."""
        language = main_language((part for of_chunk in pieces for part in of_chunk), self._speech, before.speech_ms)
        if self._settings.language is not None:
            return language, ()
        return language, contradicting(pieces, language, self._speech, before)

    async def _in_context(self, part: RecognizedChunk, language: str, doubted: bool) -> list[RecognizedChunk]:
        return await (self._retry_in_language if doubted else self._retry_without_text)(part, language)

    async def _recognize_chunk(
        self, chunk: Chunk, settings: DecodeSettings, run: FirstRun = NOTHING_KNOWN
    ) -> list[RecognizedChunk]:
        if self._lacks_speech(chunk, MIN_RECOGNIZED_SPEECH_S):
            return [RecognizedChunk(chunk, NO_SPEECH)]
        first, settings = await self._without_leakage(chunk, settings, run)
        failure = self._failure_of(first)
        if failure is None:
            return [first]
        if failure is REPETITION_LOOP:
            settings = replace(settings, loops=settings.loops + 1)
        if chunk.duration_s >= MIN_SPLIT_S:
            retried = await self._in_halves(chunk, settings)
        elif failure is REPETITION_LOOP:
            strongest = replace(settings, loops=len(REPETITION_PENALTIES))
            retried = [(await self._without_leakage(chunk, strongest))[0]]
        else:
            retried = []
        kept = self._better(finalized(first), [finalized(part) for part in retried])
        return with_fallbacks(kept, failure) if retried else kept

    def _better(self, first: RecognizedChunk, retried: list[RecognizedChunk]) -> list[RecognizedChunk]:
        """The answer to keep: the one with more text, or the retry if both have as much.

        After a repetition loop, MIN_LOOP_RETRY_SHARE of the text is enough, because the model may have made up the
        phrase and what led into it. After a truncated answer, any text is enough if all halves are complete and none of
        them has speech without text.
        """
        answer = first.recognition
        is_complete = all(part.recognition.finished for part in retried)
        misses_no_speech = all(
            letter_count([part]) or self._lacks_speech(part.chunk, MIN_RETRIED_SPEECH_S) for part in retried
        )
        if not (answer.finished or answer.looped) and is_complete and misses_no_speech:
            min_letters: float = 1
        else:
            min_letters = letter_count([first]) * (MIN_LOOP_RETRY_SHARE if answer.looped else 1)
        return retried if retried and letter_count(retried) >= min_letters else [first]

    async def _in_halves(self, chunk: Chunk, settings: DecodeSettings) -> list[RecognizedChunk]:
        return await _gather_flat(self._recognize_chunk(half, settings) for half in halves(chunk, self._speech))

    async def _without_leakage(
        self, chunk: Chunk, settings: DecodeSettings, run: FirstRun = NOTHING_KNOWN
    ) -> tuple[RecognizedChunk, DecodeSettings]:
        """The chunk, recognised again without the prompt if the answer is prompt leakage, and the settings used."""
        answer = RecognizedChunk(chunk, await self._recognize_once(chunk, settings, run))
        if not (settings.prompt and self._may_be_hallucinated(answer)):
            return answer, settings
        if not await asyncio.to_thread(is_prompt_leakage, answer.recognition.text, settings.prompt):
            return answer, settings
        settings = replace(settings, prompt="")
        recognition = await self._recognize_once(chunk, settings)
        return RecognizedChunk(chunk, recognition, fallbacks=(PROMPT_LEAKAGE,)), settings

    def _failure_of(self, answer: RecognizedChunk) -> str | None:
        """What is wrong with a first answer, or None."""
        recognition = answer.recognition
        if recognition.looped:
            return REPETITION_LOOP
        if not recognition.finished:
            return TRUNCATED_ANSWER
        speech_s = self._speech_s(answer.chunk)
        if recognition.text and speech_s >= MIN_TEXT_CHECK_S:
            return TOO_LITTLE_TEXT if letter_count([answer]) < MIN_TEXT_LETTERS_PER_S * speech_s else None
        return None

    def _may_be_hallucinated(self, answer: RecognizedChunk) -> bool:
        """Whether there is more text than can be spoken in the time, or it is doubtful that the sound is speech."""
        return is_too_fast(answer, self._speech) or is_doubtful_speech(answer.chunk, self._speech)

    def _lacks_speech(self, chunk: Chunk, min_s: float) -> bool:
        """Whether a detector ran, and found less than `min_s` seconds of speech in the chunk."""
        return self._speech.measured and self._speech_s(chunk) < min_s

    async def _retry_in_language(self, part: RecognizedChunk, language: str) -> list[RecognizedChunk]:
        """A chunk in another language than the rest is recognised in the recording's; the likelier answer is kept."""
        prompt = "" if PROMPT_LEAKAGE in part.fallbacks else self._settings.prompt
        again, _ = await self._without_leakage(part.chunk, DecodeSettings(language, prompt))
        return with_fallbacks([likelier(part, again, self._speech)], OTHER_LANGUAGE)

    async def _retry_without_text(self, part: RecognizedChunk, language: str) -> list[RecognizedChunk]:
        """A chunk with speech and no text is recognised in the recording's language, and then in halves.

        With a given language the model hallucinates text from noise more often, so the speech must not be doubtful.
        """
        if part.recognition.text or self._speech_s(part.chunk) < MIN_RETRIED_SPEECH_S:
            return [part]
        if language and self._settings.language is None and not is_doubtful_speech(part.chunk, self._speech):
            retried, _ = await self._without_leakage(part.chunk, replace(self._settings, language=language))
            recognition = retried.recognition
            if recognition.text and recognition.finished and not self._may_be_hallucinated(retried):
                return with_fallbacks([retried], NO_TEXT)
        if part.chunk.duration_s >= MIN_SPLIT_S:
            pieces = await self._in_halves(part.chunk, self._settings)
            if letter_count(pieces):
                return with_fallbacks(pieces, NO_TEXT)
        return with_fallbacks([part], NO_TEXT, STILL_NO_TEXT)

    def _speech_s(self, chunk: Chunk) -> float:
        """Seconds of speech in the chunk; 0 if no detector ran."""
        return self._speech.seconds(chunk.start, chunk.end) if self._speech.measured else 0.0

    async def _recognize_once(
        self, chunk: Chunk, settings: DecodeSettings, run: FirstRun = NOTHING_KNOWN, *, is_final: bool = True
    ) -> Recognition:
        if run.known is not None:
            return run.known
        budget = MIN_TOKEN_BUDGET + round(TOKEN_BUDGET_PER_S * chunk.duration_s)
        budget = min(budget, self._instance.options.max_new_tokens or budget)
        utterance = Utterance(
            chunk.samples,
            settings.language,
            settings.prompt,
            budget,
            settings.repetition_penalty,
            listener=run.listener,
            draft=run.draft,
            fixed=run.fixed,
        )
        recognition = await self._scheduler.submit(
            self._kind, utterance, audio_s=chunk.duration_s, owner=self._stats, is_final=is_final
        )
        if not fold(recognition.text):  # punctuation alone is no text
            return replace(recognition, text="", language=None, tokens=())
        return recognition


async def _gather_flat(parts: Iterable[Coroutine[Any, Any, list[RecognizedChunk]]]) -> list[RecognizedChunk]:
    return [part for pieces in await gather_or_cancel(parts) for part in pieces]
