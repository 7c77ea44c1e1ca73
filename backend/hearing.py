"""One chunk in, its whole text out, whatever it takes: what the model leaves out or makes up is heard again.

Rules: text is never shortened in silence, and nothing is made of nothing. A second hearing is a remedy with a name; how
often each was needed stands in the request's log line and in its warnings. Remedies go from the mildest to the last:
the halves of the chunk, cut in its deepest pause; a penalty on repetition, on repeats only; and when a loop outlives
everything, its phrase is said once.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from backend.audio.chunks import halves
from backend.audio.speech import Speech
from backend.audio.waveform import Chunk
from backend.engine.recognizer import AlignedUnit, Recognition, Utterance
from backend.engine.resident import Lean
from backend.engine.scheduler import Scheduler
from backend.options import TranscribeOptions
from backend.transcript.leakage import recites
from backend.transcript.repetition import collapsed

T = TypeVar("T")

# The fastest speech is about 7 tokens a second in Qwen's vocabulary, rare names and numbers more; the constant is for
# the language tag and the punctuation of a very short clip. An answer that needs more is a loop, or is done in halves.
_TOKENS_PER_SECOND, _TOKENS_AT_LEAST = 12, 32
_SHORTEST_SPLIT_S = 2.0  # halves of less than a second hold no sentence; what still does not end there is a loop

# Slow speech is 2 tokens a second. Who speaks for so long and is given so little was not heard to the end.
_FEW_TOKENS_PER_SECOND, _FEW_FROM_S = 0.5, 4.0
_SPOKEN_S = 0.5  # of speech without text that are worth a second hearing: shorter is a cough, or the detector's error

# Weak speech: the detector doubts it, or nobody could have said so much in so short a time.
_WEAK, _TOO_FAST_PER_SECOND = 0.7, 8.0

_PENALTIES = (1.05, 1.1, 1.15)  # for the first, second, … repeat of what looped

# Remedies, as they stand in warnings: "3 passages …"
UNFINISHED = "did not end within the token budget and was heard again in halves"
LOOPED = "repeated itself and was heard again in halves"
SHORT = "had little text for its speech and was heard again in halves"
SILENT = "had speech and no text and was heard again"
LEAKED = "recited the prompt and was heard again without it"
COLLAPSED = "went on repeating itself; the repetition was reduced to one phrase"
CUT = "did not end even so; its text may be incomplete"
UNHEARD = "had speech and still no text"


@dataclass(frozen=True)
class Heard:
    """A chunk, what was recognised in it, and the aligner's units of it (seconds from its start), if it gave any."""

    chunk: Chunk
    recognition: Recognition
    units: tuple[AlignedUnit, ...] | None = None
    coarse_because: str = ""


class Hearing:
    """What one request hears. `remedies` counts what was needed for it."""

    def __init__(self, scheduler: Scheduler, instance: Lean, options: TranscribeOptions, speech: Speech) -> None:
        self._scheduler = scheduler
        self._instance = instance
        self._options = options
        self._speech = speech
        self.remedies: Counter[str] = Counter()

    async def hear(self, chunks: Iterable[Chunk]) -> list[Heard]:
        """The chunks' texts, in order; a chunk that was heard in pieces is given as its pieces."""
        heard = await self._each(self._hear(chunk) for chunk in chunks)
        language = main_language(heard, self._speech)
        return await self._each(self._heard_again(part, language) for part in heard)

    async def _hear(self, chunk: Chunk, repeats: int = 0) -> list[Heard]:
        """A chunk's text. `repeats`: how often it looped before, as a part of something longer."""
        penalty = _PENALTIES[min(repeats, len(_PENALTIES)) - 1] if repeats else 1.0
        recognition = await self._without_leak(chunk, await self._recognize(chunk, self._options, penalty))
        remedy = self._remedy(chunk, recognition)
        if remedy is None:
            return [Heard(chunk, recognition)]
        if chunk.duration_s < _SHORTEST_SPLIT_S:
            return [Heard(chunk, await self._last_resort(chunk, recognition))]
        self.remedies[remedy] += 1
        again = await self._halves(chunk, repeats + (remedy is LOOPED))
        if remedy is SHORT and _letters(again) <= len(recognition.text):
            return [Heard(chunk, recognition)]  # there was no more to hear
        return again

    async def _halves(self, chunk: Chunk, repeats: int) -> list[Heard]:
        return await self._each(self._hear(half, repeats) for half in halves(chunk, self._speech))

    def _remedy(self, chunk: Chunk, recognition: Recognition) -> str | None:
        """What a chunk's recognition calls for."""
        if recognition.looped:
            return LOOPED
        if not recognition.finished:
            return UNFINISHED
        spoken_s = self._spoken_s(chunk)
        if recognition.text and spoken_s >= _FEW_FROM_S:
            return SHORT if len(recognition.tokens) < _FEW_TOKENS_PER_SECOND * spoken_s else None
        return None

    async def _last_resort(self, chunk: Chunk, recognition: Recognition) -> Recognition:
        """For a chunk that is too short to be cut and still did not end."""
        if recognition.looped:
            recognition = await self._recognize(chunk, self._options, _PENALTIES[-1])
        if recognition.finished:
            return recognition
        text = collapsed(recognition.text)
        self.remedies[COLLAPSED if text != recognition.text else CUT] += 1
        return replace(recognition, text=text, tokens=tuple(t for t in recognition.tokens if t.end <= len(text)))

    async def _without_leak(self, chunk: Chunk, recognition: Recognition) -> Recognition:
        """The recognition, or one that did not know the prompt, where it recites the prompt on weak speech."""
        if not recites(recognition.text, self._options.prompt) or not self._is_weak(chunk, recognition):
            return recognition
        self.remedies[LEAKED] += 1
        return await self._recognize(chunk, replace(self._options, prompt=""))

    def _is_weak(self, chunk: Chunk, recognition: Recognition) -> bool:
        too_fast = len(recognition.tokens) > _TOO_FAST_PER_SECOND * self._speech.seconds(chunk.start, chunk.end)
        return too_fast or self._speech.strength(chunk.start, chunk.end) < _WEAK

    async def _heard_again(self, part: Heard, language: str) -> list[Heard]:
        """A passage with speech and no text: again in the recording's language, and then in halves."""
        if part.recognition.text or self._spoken_s(part.chunk) < _SPOKEN_S:
            return [part]
        self.remedies[SILENT] += 1
        if language and self._options.language is None:
            known = replace(self._options, language=language)
            recognition = await self._without_leak(part.chunk, await self._recognize(part.chunk, known))
            if recognition.text and recognition.finished:
                return [Heard(part.chunk, recognition)]
        if part.chunk.duration_s >= _SHORTEST_SPLIT_S:
            again = await self._halves(part.chunk, 0)
            if _letters(again):
                return again
        self.remedies[UNHEARD] += 1
        return [part]

    def _spoken_s(self, chunk: Chunk) -> float:
        """Seconds of speech in the chunk; 0 if nobody listened for it."""
        return self._speech.seconds(chunk.start, chunk.end) if self._speech.measured else 0.0

    async def _recognize(self, chunk: Chunk, options: TranscribeOptions, penalty: float = 1.0) -> Recognition:
        load = self._instance.options
        budget = _TOKENS_AT_LEAST + round(_TOKENS_PER_SECOND * chunk.duration_s)
        budget = min(budget, load.max_new_tokens or budget)
        utterance = Utterance(chunk.samples, options.language, options.prompt, budget, penalty)
        return await self._scheduler.submit(
            self._instance.recognizer.recognize, utterance, seconds=chunk.duration_s, most=load.batch_max_size
        )

    async def _each(self, parts: Iterable[Coroutine[Any, Any, list[Heard]]]) -> list[Heard]:
        return [part for some in await together(parts) for part in some]


def main_language(heard: Iterable[Heard], speech: Speech) -> str:
    """The code of the language in which most was said; "" if nothing was."""
    spoken: Counter[str] = Counter()
    for part in heard:
        if part.recognition.language and part.recognition.text:
            # a text counts in any case: the detector may have missed its speech
            seconds = max(speech.seconds(part.chunk.start, part.chunk.end), 0.01)
            spoken[part.recognition.language] += round(1000 * seconds)
    return spoken.most_common(1)[0][0] if spoken else ""


def _letters(heard: Iterable[Heard]) -> int:
    return sum(len(part.recognition.text) for part in heard)


async def together(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all, in order; as soon as one fails the others are cancelled."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
