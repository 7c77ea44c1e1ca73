"""Recognition of one recording as a stream: the text leaves while it is decoded, in order, and is never taken back.

The chunks, their fallbacks and their texts are those of RecognitionPolicy.recognize. What a stream adds:

- The first chunk that is not settled is the head. Of its first answer the certain text (certain_text.py) leaves while
  it is decoded. All other text leaves when its chunk is settled and those before it are.
- A chunk in another language than the rest, or without text, is settled by the languages of the chunks that are known
  when it is the head, the next one included, and not of the whole recording.
- If a fallback gives a chunk of which a part was sent another text, the chunk's text is the part and what follows it in
  the new text (transcript/splicing.py). It is counted as a rewrite.
- The separator of two chunks leaves with the text after it. The deltas together are the joined text, byte for byte.
- A delta leaves at most every 50 ms, counted from the beginning of recognition, but for the last. While the client
  does not read, they merge into one.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from backend.audio.vad import Speech
from backend.audio.waveform import Chunk
from backend.options.load_options import TranscribeOptions
from backend.pipeline.certain_text import CertainText
from backend.pipeline.decode_settings import FirstRun
from backend.pipeline.language_consistency import LanguageHistory, is_weak
from backend.pipeline.recognition import RecognitionPolicy
from backend.pipeline.recognized_chunk import (
    ALREADY_SENT,
    RecognizedChunk,
    main_language,
    speech_by_language,
    spliced,
    with_fallbacks,
)
from backend.process.request_stats import RequestStats
from backend.serving.model_instance import Lean
from backend.serving.protocols import Listener
from backend.transcript.joining import join, separator_between
from backend.transcript.splicing import continuation

_MIN_INTERVAL_S = 0.05  # between two deltas: each is a message, and an event of the gateway's HTTP stream
# Between two looks at the head's answer, while none of it is certain; and while other chunks are held back for it.
_LOOK_INTERVAL_S = 0.01
_EARLY_LOOK_INTERVAL_S = 0.002
# Chunks that are recognised at once, by those of a full batch: enough to fill the next batch. A fallback waits behind
# the chunks that were submitted before, and the text after it waits with it.
_BATCHES_AHEAD = 2
# The chunks behind the first prefill are held back until text of the first chunk is certain, because their prefills
# would come before its first words. The whole ends some ten decode steps later for it. So they are not held back where
# all prefills before the first words, judged by the first prefill, take less than this.
_MIN_HELD_BACK_S = 0.15
# Of sound in the first prefill: a GPU's takes half an hour at once, but for so much it needs about ten decode steps.
_MAX_FIRST_PREFILL_S = 240.0


@dataclass
class _Head:
    """The first chunk that is not settled. `sent`: the text of it that has left. `is_open`: more may leave."""

    number: int
    sent: str = ""
    is_open: bool = True
    certain: CertainText | None = None


class StreamedRecognition:
    """Recognises the chunks of one request, once. For the event loop's thread."""

    def __init__(
        self,
        policy: RecognitionPolicy,
        instance: Lean,
        options: TranscribeOptions,
        speech: Speech,
        stats: RequestStats,
        chunks: Sequence[Chunk],
    ) -> None:
        self.recognized: list[RecognizedChunk] = []  # of the settled chunks, in order
        self._policy = policy
        self._recognizer = instance.recognizer
        self._options = options
        self._speech = speech
        self._stats = stats
        self._chunks = chunks
        self._max_batch = instance.max_batch
        self._ahead = _BATCHES_AHEAD * self._max_batch
        self._in_first_prefill = _in_first_prefill(chunks, instance.recognition.max_prefill_s, self._max_batch)
        self._held_since: float | None = None  # since when chunks have been held back, by the loop's time
        self._first_answers: list[asyncio.Task[list[RecognizedChunk]]] = []  # of the first chunks
        self._speech_ms: Counter[str] = Counter()  # by language, in the first answers that are there
        self._languages = LanguageHistory()  # of the settled chunks
        self._tokens: dict[int, Sequence[int]] = {}  # of the first answers so far, by the chunk's number
        self._head: _Head | None = None
        self._unsent = ""  # certain text
        self._before = ""  # the last settled text
        self._changed = asyncio.Event()
        self._is_waiting = False  # whether the next tokens wake the stream
        self._seen: Sequence[int] | None = None  # the head's tokens at the last look

    async def deltas(self) -> AsyncGenerator[str]:
        """The text of the recording, piece by piece; afterwards `recognized` is complete.

        Raises OutOfMemory or EngineFailure. Closing it cancels what it has submitted.
        """
        loop = asyncio.get_running_loop()
        next_delta_s = loop.time() + _MIN_INTERVAL_S
        if len(self._chunks) > self._in_first_prefill and not self._is_weak(0):
            self._held_since = loop.time()
        settling = asyncio.ensure_future(self._settle_all())
        settling.add_done_callback(lambda _: self._changed.set())
        try:
            while await self._may_look(settling, next_delta_s):
                await self._look()
                if self._unsent and loop.time() >= next_delta_s:
                    delta, self._unsent = self._unsent, ""
                    yield delta
                    next_delta_s = loop.time() + _MIN_INTERVAL_S
            settling.result()
            if self._unsent:
                yield self._unsent
        finally:
            settling.cancel()
            await asyncio.wait({settling})
            _ = settling.cancelled() or settling.exception()  # asyncio logs one that nobody has asked for

    async def _settle_all(self) -> None:
        try:
            with self._stats.measure("infer"):
                for number in range(len(self._chunks)):
                    self._submit(self._in_first_prefill if self._held_since is not None else number + self._ahead)
                    self._head = head = _Head(number)
                    self._changed.set()
                    await asyncio.wait({self._first_answers[number]})
                    head.is_open = False
                    self._submit(number + self._ahead)
                    await self._settle(head)
        finally:
            for task in self._first_answers:
                task.cancel()
            await asyncio.gather(*self._first_answers, return_exceptions=True)

    def _submit(self, until: int) -> None:
        """Begin to recognise the chunks up to number `until`."""
        if until > self._in_first_prefill:
            self._held_since = None
        for number in range(len(self._first_answers), min(until, len(self._chunks))):
            answer = self._policy.first_answer(self._chunks[number], FirstRun(self._listener(number)))
            self._first_answers.append(task := asyncio.ensure_future(answer))
            task.add_done_callback(self._count_languages)

    def _listener(self, number: int) -> Listener:
        loop = asyncio.get_running_loop()

        def listen(tokens: Sequence[int]) -> None:
            self._tokens[number] = tokens
            if self._is_waiting and self._head is not None and self._head.number == number:
                self._is_waiting = False
                with suppress(RuntimeError):  # the loop is closed: the process is exiting
                    loop.call_soon_threadsafe(self._changed.set)

        return listen

    async def _may_look(self, settling: asyncio.Task[None], next_delta_s: float) -> bool:
        """Wait until there is something new, or something to send; False when everything is settled.

        The model's thread wakes the stream at most once for each look, however short its steps are.
        """
        left_s = next_delta_s - asyncio.get_running_loop().time()
        pause_s = max(left_s, _LOOK_INTERVAL_S) if self._held_since is None else _EARLY_LOOK_INTERVAL_S
        await asyncio.wait({settling}, timeout=pause_s)
        self._is_waiting = True
        if not self._unsent and self._head_tokens() is self._seen:
            await self._changed.wait()
        self._changed.clear()
        return not settling.done()

    def _head_tokens(self) -> Sequence[int] | None:
        return self._tokens.get(self._head.number) if self._head is not None else None

    def _count_languages(self, answer: asyncio.Task[list[RecognizedChunk]]) -> None:
        if _is_there(answer):
            self._speech_ms += speech_by_language(answer.result(), self._speech)

    async def _settle(self, head: _Head) -> None:
        """The head's last fallbacks; after that its text is complete."""
        first = self._first_answers[head.number].result()
        if self._depends_on_the_next(head.number, first):
            await asyncio.wait({self._first_answers[head.number + 1]})
        later = [task.result() for task in self._first_answers[head.number + 1 :] if _is_there(task)]
        parts = await self._policy.in_context(first, self._languages, later)
        self._languages.add(first, self._speech)
        text, _ = join([part.recognition.text for part in parts])
        if not text.startswith(head.sent):
            text = head.sent + await asyncio.to_thread(continuation, head.sent, text)
            language = main_language(parts, self._speech) or self._options.language
            tokens = self._recognizer.tokens_of(text)
            as_one = spliced(self._chunks[head.number], parts, text, language, tokens)
            parts = with_fallbacks([as_one], ALREADY_SENT)
            self._stats.rewrites += 1
        after, _ = join([self._before, *(part.recognition.text for part in parts)])
        self._unsent += text[len(head.sent) :] if head.sent else after[len(self._before) :]
        self._before = next((part.recognition.text for part in reversed(parts) if part.recognition.text), self._before)
        self._tokens.pop(head.number, None)
        self.recognized += parts
        self._changed.set()

    async def _look(self) -> None:
        """Add the text of the head that is certain by now to what is sent."""
        head = self._head
        self._seen = tokens = self._head_tokens()
        if head is None or not head.is_open or not tokens:
            return
        if self._held_since is not None:
            self._release_if_quick(self._held_since)
        if head.certain is None:
            chunk = self._chunks[head.number]
            head.certain = CertainText(chunk, self._speech, self._options, self._recognizer)
        language, text = await head.certain.of(tokens, head.sent)
        if text and head.is_open and self._is_in_the_main_language(head.number, language):
            self._unsent += text[len(head.sent) :] if head.sent else separator_between(self._before, text) + text
            head.sent = text
            self._submit(head.number + self._ahead)

    def _release_if_quick(self, held_since: float) -> None:
        """Begin with the chunks that are held back if, by the first prefill, theirs will not take long."""
        first, others = self._chunks[: self._in_first_prefill], self._chunks[self._in_first_prefill : self._max_batch]
        prefill_s = asyncio.get_running_loop().time() - held_since
        if prefill_s / _total_s(first) * _total_s(others) <= _MIN_HELD_BACK_S:
            self._submit(self._ahead)

    def _is_in_the_main_language(self, number: int, language: str | None) -> bool:
        """Whether the head's language, while it is decoded, is no reason to recognise it again."""
        if self._options.language is not None or len(self._chunks) == 1:
            return True
        main = _most(self._speech_ms)
        return language == main if main else not self._is_weak(number)

    def _is_weak(self, number: int) -> bool:
        return is_weak(self._chunks[number], self._speech)

    def _depends_on_the_next(self, number: int, first: list[RecognizedChunk]) -> bool:
        """Whether the first answer of the chunk may be right or wrong by that of the next one."""
        if self._options.language is not None or number + 1 == len(self._chunks):
            return False
        own = speech_by_language(first, self._speech)
        main = _most(self._speech_ms - own)
        if not own:
            return not main
        if main:
            return {*own} != {main}
        return self._is_weak(number)


def _most(speech_ms: Counter[str]) -> str:
    return speech_ms.most_common(1)[0][0] if speech_ms else ""


def _in_first_prefill(chunks: Sequence[Chunk], max_prefill_s: float, max_batch: int) -> int:
    """How many chunks from the first on run without the others at first; all where prefills are not bounded."""
    if math.isinf(max_prefill_s):
        return len(chunks)
    durations_s = itertools.accumulate(chunk.duration_s for chunk in chunks)
    max_s = min(max_prefill_s, _MAX_FIRST_PREFILL_S)
    return min(max(sum(duration_s <= max_s for duration_s in durations_s), 1), max_batch)


def _total_s(chunks: Iterable[Chunk]) -> float:
    return sum(chunk.duration_s for chunk in chunks)


def _is_there(answer: asyncio.Task[list[RecognizedChunk]]) -> bool:
    return answer.done() and not answer.cancelled() and answer.exception() is None
