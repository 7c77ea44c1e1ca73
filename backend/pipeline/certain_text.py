"""How much of an answer that is still being decoded is certain enough to be sent: what has left is never taken back.

Each fallback of recognition.py replaces an answer, so the text of an answer waits until its fallback is ruled out:

| what may still replace the text | what the text waits for |
|---|---|
| an answer of punctuation alone counts as none | its first letter |
| too little text for its speech | so much text (exact) |
| prompt leakage | words that are not the prompt's; where the speech is doubtful, the answer's end |
| a repetition loop | the end of a repetition: at most one turn of a loop leaves |
| a word that the next token goes on with | the next word |

A truncated answer is not ruled out: it is rare, and streaming.py goes on from what has been sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from backend.audio.vad import Speech
from backend.audio.waveform import Chunk
from backend.options.load_options import TranscribeOptions
from backend.pipeline.recognized_chunk import is_doubtful_speech
from backend.sequences.loop_detection import repetition_start
from backend.serving.protocols import Recognizer, Spelled
from backend.thresholds import MAX_SPEECH_LETTERS_PER_S, MIN_OWN_WORDS, MIN_TEXT_CHECK_S, MIN_TEXT_LETTERS_PER_S
from backend.transcript.leakage import may_begin_leakage
from backend.transcript.matching import fold
from backend.transcript.scripts import pieces
from backend.transcript.speech_rate import spoken_letters


class CertainText:
    """The certain text of one chunk's first answer."""

    def __init__(self, chunk: Chunk, speech: Speech, options: TranscribeOptions, recognizer: Recognizer) -> None:
        self._language = options.language
        self._prompt = options.prompt
        self._spell = recognizer.spell
        speech_s = speech.seconds(chunk.start, chunk.end)
        is_checked = speech.measured and speech_s >= MIN_TEXT_CHECK_S
        self._min_letters = MIN_TEXT_LETTERS_PER_S * speech_s if is_checked else 0.0
        self._max_letters = MAX_SPEECH_LETTERS_PER_S * speech_s
        self._is_doubtful = is_doubtful_speech(chunk, speech)

    async def of(self, ids: Sequence[int], sent: str) -> Spelled:
        """The language and the certain text of an answer of which these are the tokens so far.

        `sent`: its certain text before. The text is "" where there is nothing new.
        """
        language, text = self._spell(ids[: repetition_start(ids)], self._language)
        certain = _without_last_piece(text, len(sent)) if text.startswith(sent) else ""
        if len(certain) <= len(sent) or not (sent or fold(certain)):
            return Spelled(language, "")
        if self._min_letters:
            if spoken_letters(text) < self._min_letters:
                return Spelled(language, "")
            self._min_letters = 0.0
        if self._prompt and await self._may_be_leakage(text, certain):
            return Spelled(language, "")
        return Spelled(language, certain)

    async def _may_be_leakage(self, text: str, certain: str) -> bool:
        if self._is_doubtful or spoken_letters(text) > self._max_letters:
            return True
        if await asyncio.to_thread(may_begin_leakage, certain, self._prompt):
            return True
        if len(pieces(certain)) >= MIN_OWN_WORDS:
            self._prompt = ""
        return False


def _without_last_piece(text: str, sent: int) -> str:
    """The text before its last piece, without white space at its end. `sent`: characters that end with a piece.

    Only what follows the last white space in those is looked at again: pieces do not reach across white space.
    """
    first = len(text[:sent].rpartition(" ")[0])
    found = pieces(text[first:])
    return text[: first + found[-2][1]] if len(found) > 1 else text[:sent]
