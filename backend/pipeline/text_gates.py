"""What an answer that is not final waits for, because a fallback of recognition.py may still replace it.

| what may still replace the text | what the text waits for |
|---|---|
| an answer of punctuation alone counts as none | its first letter |
| too little text for its speech | so much text (exact) |
| prompt leakage | words that are not the prompt's; where the speech is doubtful, the answer's end |
"""

from __future__ import annotations

import asyncio

from backend.audio.vad import Speech
from backend.audio.waveform import Chunk
from backend.options.load_options import TranscribeOptions
from backend.pipeline.recognized_chunk import is_doubtful_speech
from backend.thresholds import MAX_SPEECH_LETTERS_PER_S, MIN_OWN_WORDS, MIN_TEXT_CHECK_S, MIN_TEXT_LETTERS_PER_S
from backend.transcript.leakage import may_begin_leakage
from backend.transcript.matching import fold
from backend.transcript.scripts import pieces
from backend.transcript.speech_rate import spoken_letters


class TextGates:
    """The gates of one chunk's answer. A gate that has been passed stays open."""

    def __init__(self, chunk: Chunk, speech: Speech, options: TranscribeOptions) -> None:
        self._prompt = options.prompt
        speech_s = speech.seconds(chunk.start, chunk.end)
        is_checked = speech.measured and speech_s >= MIN_TEXT_CHECK_S
        self._min_letters = MIN_TEXT_LETTERS_PER_S * speech_s if is_checked else 0.0
        self._max_letters = MAX_SPEECH_LETTERS_PER_S * speech_s
        self._is_doubtful = bool(options.prompt) and is_doubtful_speech(chunk, speech)

    async def are_open(self, text: str, beginning: str) -> bool:
        """Whether the `beginning` of the answer `text`, or of what there is of it, may be sent."""
        if not fold(beginning):
            return False
        if self._min_letters:
            if spoken_letters(text) < self._min_letters:
                return False
            self._min_letters = 0.0
        return not (self._prompt and await self._may_be_leakage(text, beginning))

    async def _may_be_leakage(self, text: str, beginning: str) -> bool:
        if self._is_doubtful or spoken_letters(text) > self._max_letters:
            return True
        if await asyncio.to_thread(may_begin_leakage, beginning, self._prompt):
            return True
        if len(pieces(beginning)) >= MIN_OWN_WORDS:
            self._prompt = ""
        return False
