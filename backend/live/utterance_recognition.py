"""Recognition of one piece of a live stream: while it grows, and for good with every fallback of recognition.py.

What has been sent is never taken back (Law 7), so a final text that begins otherwise is fitted to it: once more with
the sent text as the beginning of the answer, then by transcript/splicing.py.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from backend.audio.vad import Speech
from backend.live.final_deadline import FinalDeadline
from backend.live.growing_answer import GrowingAnswer
from backend.live.live_setup import LiveSetup
from backend.live.sound_window import Piece
from backend.pipeline.decode_settings import FirstRun
from backend.pipeline.language_consistency import LanguageHistory
from backend.pipeline.recognition import RecognitionPolicy
from backend.pipeline.recognized_chunk import ALREADY_SENT, RecognizedChunk, main_language, spliced, with_fallbacks
from backend.pipeline.text_gates import TextGates
from backend.process.request_warning import RequestWarning as Fallback
from backend.serving.protocols import Recognition
from backend.transcript.joining import join, separator_between
from backend.transcript.scripts import pieces
from backend.transcript.splicing import covered

SETTLED_EARLY = Fallback("was not recognised for good in time; its last provisional text stands", "settled_early")


class Recognized(NamedTuple):
    """A piece for good. `text`: of its `parts`, joined; `carried`: sent text that belongs to the sound behind it."""

    parts: list[RecognizedChunk]
    text: str
    carried: str = ""


class UtteranceRecognition:
    """Recognises the pieces of one stream, one at a time."""

    def __init__(self, setup: LiveSetup, deadline: FinalDeadline) -> None:
        self._deadline = deadline
        self._scheduler = setup.scheduler
        self._instance = setup.instance
        self._options = setup.options
        self._stats = setup.stats
        self._answered: tuple[tuple[int, int], Recognition] | None = None  # the last answer, and for which sound
        self._languages = LanguageHistory()  # of the pieces so far: all that one piece knows of another

    async def settle(self, piece: Piece, growing: GrowingAnswer, *, is_whole: bool) -> str:
        """Decode a piece that may grow. Returns the beginning of its text that may be sent now, or "".

        `is_whole`: it will not grow unless speech goes on. Raises OutOfMemory or EngineFailure.
        """
        policy = self._policy(piece.speech)
        answer = await policy.provisional_answer(piece.chunk, growing.run, is_final=is_whole)
        self._answered = piece.place, answer
        text = growing.settle(answer, piece.place[1])
        if not text:
            if growing.sent and growing.contradicts(answer.text):
                self._stats.rewrites += 1
            return ""
        if self._options.language is None and self._languages.doubts(answer.language, piece.chunk, piece.speech):
            return ""
        gates = TextGates(piece.chunk, piece.speech, self._options)
        return text if await gates.are_open(answer.text, text) else ""

    async def finish(self, piece: Piece, growing: GrowingAnswer, *, is_cut: bool) -> Recognized | None:
        """Recognise a piece for good: its text begins with what has been sent of it, or is a part of that.

        None: not before the deadline. `is_cut`: speech may go on behind it, so that some of the sent text may belong
        there. Raises as `settle`.
        """
        if not piece.speech.within(piece.chunk.start, piece.chunk.end):
            return self._as_sent(piece, growing, growing.sent) if growing.sent else Recognized([], "")
        if self._deadline.is_over:
            return None
        with self._stats.measure("infer"):
            task = asyncio.ensure_future(self._recognized(piece, growing, is_cut))
            try:
                return await task if await self._deadline.meets(task) else None
            finally:
                task.cancel()

    def as_heard(self, piece: Piece, growing: GrowingAnswer) -> Recognized:
        """A piece that is late, by the last answer of its window; without one by what has been sent."""
        text = growing.sent if growing.last is None else growing.continued(growing.last.text)
        return self._as_sent(piece, growing, text, SETTLED_EARLY) if text else Recognized([], "")

    async def _recognized(self, piece: Piece, growing: GrowingAnswer, is_cut: bool) -> Recognized:
        policy = self._policy(piece.speech)
        first = await policy.first_answer(piece.chunk, self._run_of(piece, growing))
        parts = await policy.in_context(first, self._languages)
        self._languages.add(first, piece.speech)
        text = _text(parts)
        if is_cut and (recognized := self._before_cut(piece, parts, growing)) is not None:
            return recognized
        if text.startswith(growing.sent):
            return Recognized(parts, text)
        is_rewrite = growing.contradicts(text)
        if is_rewrite:
            self._stats.rewrites += 1
            parts = await policy.in_context(await policy.first_answer(piece.chunk, growing.run_of_sent))
            text = _text(parts)
            if text.startswith(growing.sent):
                return Recognized(parts, text)
        text = growing.continued(text)
        parts = [self._spliced(piece, parts, text)]
        return Recognized(with_fallbacks(parts, ALREADY_SENT) if is_rewrite else parts, text)

    def _run_of(self, piece: Piece, growing: GrowingAnswer) -> FirstRun:
        """With the answer, if the last decode was of this very piece and has not contradicted what was sent."""
        place, answer = self._answered or (None, None)
        if answer is None or place != piece.place or not answer.text.startswith(growing.sent):
            return growing.run
        return FirstRun(known=answer)

    def _before_cut(self, piece: Piece, parts: list[RecognizedChunk], growing: GrowingAnswer) -> Recognized | None:
        """The piece by the window's answer, if that has heard the sound behind the cut, too; None: by `parts`.

        A clip hears its last words worse than a window that goes on behind them, and closes them with a full stop.
        """
        text, sent, heard = _text(parts), growing.sent, growing.heard
        if not text.startswith(sent) and (end := _end_before_cut(sent, text)) < len(sent):
            return Recognized([self._spliced(piece, parts, sent[:end])], sent[:end], sent[end:].strip())
        end = covered(heard, text) if text else 0
        if not len(sent) <= end < len(heard) or not growing.agree_but_for_the_end(heard[:end], text):
            return None
        return Recognized([self._spliced(piece, parts, heard[:end])], heard[:end])

    def _as_sent(self, piece: Piece, growing: GrowingAnswer, text: str, *fallbacks: str) -> Recognized:
        """The piece with a text that no decode of it has given: begun by what has been sent."""
        language = growing.last.language if growing.last is not None else self._options.language
        tokens = self._instance.recognizer.tokens_of(text)
        part = RecognizedChunk(piece.chunk, Recognition(text, language, True, tokens), fallbacks=fallbacks)
        return Recognized([part], text)

    def _policy(self, speech: Speech) -> RecognitionPolicy:
        kind = self._instance.live_recognition
        return RecognitionPolicy(self._scheduler, self._instance, self._options, speech, self._stats, kind)

    def _spliced(self, piece: Piece, parts: list[RecognizedChunk], text: str) -> RecognizedChunk:
        language = main_language(parts, piece.speech) or self._options.language
        tokens = self._instance.recognizer.tokens_of(text)
        return spliced(piece.chunk, parts, text, language, tokens)


def _text(parts: list[RecognizedChunk]) -> str:
    return join([part.recognition.text for part in parts])[0]


def _end_before_cut(sent: str, text: str) -> int:
    """How many characters of the sent text stand for `text`, which is that of the sound before a cut.

    Never more than that, or words would be said twice; fewer where joining two texts would not restore the sent one.
    """
    most = covered(sent, text)
    ends = [end for _, end in pieces(sent) if end <= most]
    return next((end for end in reversed(ends) if sent[end:] == _rejoined(sent[:end], sent[end:].strip())), 0)


def _rejoined(before: str, rest: str) -> str:
    """What `rest` is in a transcript behind `before`: with its separator."""
    return separator_between(before, rest) + rest
