"""One chunk in, its whole text out, whatever it takes: what the model leaves out or makes up is heard again.

Rules: text is never shortened in silence: of two hearings the longer is kept, unless only the shorter came to an end.
Nothing is made of nothing: where a detector listened and heard nobody, the model is not asked. A second hearing is a
remedy with a name; how often each was needed stands in the request's log line and in its warnings. Remedies go from the
mildest to the last: the halves of the chunk, cut in its deepest pause; a penalty on repetition, on repeats only; and
when a loop outlives everything, its phrase is said once.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from backend.audio.chunks import halves
from backend.audio.vad import Speech
from backend.audio.waveform import Chunk
from backend.options import TranscribeOptions
from backend.process.request_stats import RequestStats
from backend.serving.protocols import AlignedUnit, Recognition, Utterance
from backend.serving.resident import Lean
from backend.serving.scheduler import Scheduler
from backend.transcript.leakage import is_prompt_leakage
from backend.transcript.matching import fold
from backend.transcript.repetition import collapse_repetition

T = TypeVar("T")

# The fastest speech is about 7 tokens a second in Qwen's vocabulary, rare names and numbers more; the constant is for
# the language tag and the punctuation of a very short clip. An answer that needs more is a loop, or is done in halves.
_TOKENS_PER_SECOND, _TOKENS_AT_LEAST = 12, 32
_SHORTEST_SPLIT_S = 2.0  # halves of less than a second hold no sentence; what still does not end there is a loop

# Slow speech is 2 tokens a second. Who speaks for so long and is given so little was not heard to the end.
_FEW_TOKENS_PER_SECOND, _FEW_FROM_S = 0.5, 4.0
_HEARABLE_S = 0.05  # less speech than that is the rounding of the detector's frames
_SPOKEN_S = 0.5  # of speech without text that are worth a second hearing: shorter is a cough, or the detector's error

# Weak speech: the detector doubts it, or nobody could have said so much in so short a time.
_WEAK, _TOO_FAST_PER_SECOND = 0.7, 8.0

_PENALTIES = (1.05, 1.1, 1.15)  # for the first, second, … repeat of what looped

# Remedies, as they stand in warnings: "3 passages …"
UNFINISHED = "did not end within the token budget and was heard again"
LOOPED = "repeated itself and was heard again"
SHORT = "had little text for its speech and was heard again"
SILENT = "had speech and no text and was heard again"
LEAKED = "recited the prompt and was heard again without it"
COLLAPSED = "went on repeating itself; the repetition was reduced to one phrase"
CUT = "did not end even so; its text may be incomplete"
UNHEARD = "had speech and still no text"

_NOTHING = Recognition("", None, True, ())


@dataclass(frozen=True)
class RecognizedChunk:
    """A chunk, what was recognised in it, and the aligner's units of it (seconds from its start), if it gave any.

    `remedies`: what was needed for it, and for the chunk that it is the first piece of.
    """

    chunk: Chunk
    recognition: Recognition
    units: tuple[AlignedUnit, ...] | None = None
    coarse_because: str = ""
    remedies: tuple[str, ...] = ()


@dataclass(frozen=True)
class DecodeSettings:
    """How a chunk is asked for. `repeats`: how often it looped before, as a part of something longer."""

    language: str | None
    prompt: str
    repeats: int = 0

    @property
    def penalty(self) -> float:
        return _PENALTIES[min(self.repeats, len(_PENALTIES)) - 1] if self.repeats else 1.0


class RecognitionPolicy:
    """What one request hears."""

    def __init__(
        self, scheduler: Scheduler, instance: Lean, options: TranscribeOptions, speech: Speech, stats: RequestStats
    ) -> None:
        self._scheduler = scheduler
        self._instance = instance
        self._manner = DecodeSettings(options.language, options.prompt)
        self._speech = speech
        self._stats = stats

    async def hear(self, chunks: Iterable[Chunk]) -> list[RecognizedChunk]:
        """The chunks' texts, in order; a chunk that was heard in pieces is given as its pieces."""
        heard = await _flat(self._hear(chunk, self._manner) for chunk in chunks)
        language = main_language(heard, self._speech)
        return await _flat(self._heard_again(part, language) for part in heard)

    async def _hear(self, chunk: Chunk, manner: DecodeSettings) -> list[RecognizedChunk]:
        """A chunk's text, with every remedy that it calls for but those of `_heard_again`."""
        if self._is_silent(chunk, _HEARABLE_S):
            return [RecognizedChunk(chunk, _NOTHING)]
        first, manner = await self._ask(chunk, manner)
        remedy = self._remedy(first)
        if remedy is None:
            return [first]
        if remedy is LOOPED:
            manner = replace(manner, repeats=manner.repeats + 1)
        if chunk.duration_s >= _SHORTEST_SPLIT_S:
            again = await self._halves(chunk, manner)
        elif remedy is LOOPED:
            again = [(await self._ask(chunk, replace(manner, repeats=len(_PENALTIES))))[0]]
        else:
            again = []
        best = self._better(_settled(first), [_settled(part) for part in again])
        return _with(best, remedy) if again else best

    def _better(self, first: RecognizedChunk, again: list[RecognizedChunk]) -> list[RecognizedChunk]:
        """The hearing with more text; the second, if it has as much, or if it alone came to an end and left no one out.

        Of a loop half is enough: its phrase, and what led into it, may be of the model's own making.
        """
        heard = first.recognition
        halves_ended = all(part.recognition.finished for part in again)
        halves_said = all(_letters([part]) or self._is_silent(part.chunk, _SPOKEN_S) for part in again)
        rambled = not (heard.finished or heard.looped) and halves_ended and halves_said
        least = 1 if rambled else _letters([first]) / (2 if heard.looped else 1)
        return again if again and _letters(again) >= least else [first]

    async def _halves(self, chunk: Chunk, manner: DecodeSettings) -> list[RecognizedChunk]:
        return await _flat(self._hear(half, manner) for half in halves(chunk, self._speech))

    async def _ask(self, chunk: Chunk, manner: DecodeSettings) -> tuple[RecognizedChunk, DecodeSettings]:
        """What the model says, and in what manner; without the prompt where it recites that on weak speech."""
        heard = RecognizedChunk(chunk, await self._recognize(chunk, manner))
        if not (manner.prompt and self._is_weak(heard)):
            return heard, manner
        if not await asyncio.to_thread(is_prompt_leakage, heard.recognition.text, manner.prompt):
            return heard, manner
        manner = replace(manner, prompt="")
        return RecognizedChunk(chunk, await self._recognize(chunk, manner), remedies=(LEAKED,)), manner

    def _remedy(self, heard: RecognizedChunk) -> str | None:
        """What a first hearing calls for."""
        recognition = heard.recognition
        if recognition.looped:
            return LOOPED
        if not recognition.finished:
            return UNFINISHED
        spoken_s = self._spoken_s(heard.chunk)
        if recognition.text and spoken_s >= _FEW_FROM_S:
            return SHORT if len(recognition.tokens) < _FEW_TOKENS_PER_SECOND * spoken_s else None
        return None

    def _is_weak(self, heard: RecognizedChunk) -> bool:
        spoken_s = self._speech.seconds(heard.chunk.start, heard.chunk.end)
        return len(heard.recognition.tokens) > _TOO_FAST_PER_SECOND * spoken_s or self._is_doubted(heard.chunk)

    def _is_doubted(self, chunk: Chunk) -> bool:
        return self._speech.mean_likelihood(chunk.start, chunk.end) < _WEAK

    def _is_silent(self, chunk: Chunk, least_s: float) -> bool:
        """A detector listened and heard less speech than that."""
        return self._speech.measured and self._spoken_s(chunk) < least_s

    async def _heard_again(self, part: RecognizedChunk, language: str) -> list[RecognizedChunk]:
        """A passage with speech and no text: again in the recording's language, and then in halves.

        Told the language, the model makes text of noise more often: then there must be no doubt that somebody speaks.
        """
        if part.recognition.text or self._spoken_s(part.chunk) < _SPOKEN_S:
            return [part]
        if language and self._manner.language is None and not self._is_doubted(part.chunk):
            again, _ = await self._ask(part.chunk, replace(self._manner, language=language))
            if again.recognition.text and again.recognition.finished and not self._is_weak(again):
                return _with([again], SILENT)
        if part.chunk.duration_s >= _SHORTEST_SPLIT_S:
            pieces = await self._halves(part.chunk, self._manner)
            if _letters(pieces):
                return _with(pieces, SILENT)
        return _with([part], SILENT, UNHEARD)

    def _spoken_s(self, chunk: Chunk) -> float:
        """Seconds of speech in the chunk; 0 if nobody listened for it."""
        return self._speech.seconds(chunk.start, chunk.end) if self._speech.measured else 0.0

    async def _recognize(self, chunk: Chunk, manner: DecodeSettings) -> Recognition:
        load = self._instance.options
        budget = _TOKENS_AT_LEAST + round(_TOKENS_PER_SECOND * chunk.duration_s)
        budget = min(budget, load.max_new_tokens or budget)
        utterance = Utterance(chunk.samples, manner.language, manner.prompt, budget, manner.penalty)
        recognition: Recognition = await self._scheduler.join(
            self._instance.recognizer.session,
            utterance,
            seconds=chunk.duration_s,
            most=load.batch_max_size,
            gather_s=load.batch_wait_s,
            max_prefill_s=self._instance.recognizer.max_prefill_s,
            owner=self._stats,
        )
        if not fold(recognition.text):  # marks alone are nothing that was said
            return replace(recognition, text="", language=None, tokens=())
        return recognition


def main_language(heard: Iterable[RecognizedChunk], speech: Speech) -> str:
    """The code of the language in which most was said; "" if nothing was."""
    spoken: Counter[str] = Counter()
    for part in heard:
        if part.recognition.language and part.recognition.text:
            # a text counts in any case: the detector may have missed its speech
            seconds = max(speech.seconds(part.chunk.start, part.chunk.end), 0.01)
            spoken[part.recognition.language] += round(1000 * seconds)
    return spoken.most_common(1)[0][0] if spoken else ""


def _settled(heard: RecognizedChunk) -> RecognizedChunk:
    """What did not end, as it can be shown: a loop said once; said to be cut otherwise."""
    recognition = heard.recognition
    if recognition.finished or {COLLAPSED, CUT} & set(heard.remedies):
        return heard
    text = collapse_repetition(recognition.text) if recognition.looped else recognition.text
    kept = (token for token in recognition.tokens if token.begin < len(text))
    tokens = tuple(token._replace(end=min(token.end, len(text))) for token in kept)
    shown = replace(heard, recognition=replace(recognition, text=text, tokens=tokens))
    return _with([shown], COLLAPSED if text != recognition.text else CUT)[0]


def _letters(heard: Iterable[RecognizedChunk]) -> int:
    return sum(len(fold(part.recognition.text)) for part in heard)


def _with(heard: list[RecognizedChunk], *remedies: str) -> list[RecognizedChunk]:
    """The parts, with remedies of the whole on the first."""
    return [replace(heard[0], remedies=(*heard[0].remedies, *remedies)), *heard[1:]]


async def _flat(parts: Iterable[Coroutine[Any, Any, list[RecognizedChunk]]]) -> list[RecognizedChunk]:
    return [part for some in await together(parts) for part in some]


async def together(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all, in order; as soon as one fails the others are cancelled."""
    coroutines = list(coroutines)
    if len(coroutines) == 1:  # a short clip, which tasks would cost some turns of the event loop
        return [await coroutines[0]]
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
