"""How much of an answer that is still being decoded is certain enough to be sent: what has left is never taken back.

Each fallback of recognition.py replaces an answer, so the text of an answer waits until its fallback is ruled out: see
text_gates.py, and

| what may still replace the text | what the text waits for |
|---|---|
| a repetition loop | the end of a repetition: at most one turn of a loop leaves |
| a word that the next token goes on with | the next word |

A truncated answer is not ruled out: it is rare, and streaming.py goes on from what has been sent.
"""

from __future__ import annotations

from collections.abc import Sequence

from backend.audio.vad import Speech
from backend.audio.waveform import Chunk
from backend.options.load_options import TranscribeOptions
from backend.pipeline.text_gates import TextGates
from backend.sequences.loop_detection import repetition_start
from backend.serving.protocols import Recognizer, Spelled
from backend.transcript.scripts import pieces


class CertainText:
    """The certain text of one chunk's first answer."""

    def __init__(self, chunk: Chunk, speech: Speech, options: TranscribeOptions, recognizer: Recognizer) -> None:
        self._language = options.language
        self._spell = recognizer.spell
        self._gates = TextGates(chunk, speech, options)

    async def of(self, ids: Sequence[int], sent: str) -> Spelled:
        """The language and the certain text of an answer of which these are the tokens so far.

        `sent`: its certain text before. The text is "" where there is nothing new.
        """
        language, text = self._spell(ids[: repetition_start(ids)], self._language)
        certain = _without_last_piece(text, len(sent)) if text.startswith(sent) else ""
        if len(certain) <= len(sent) or not await self._gates.are_open(text, certain):
            return Spelled(language, "")
        return Spelled(language, certain)


def _without_last_piece(text: str, sent: int) -> str:
    """The text before its last piece, without white space at its end. `sent`: characters that end with a piece.

    Only what follows the last white space in those is looked at again: pieces do not reach across white space.
    """
    first = len(text[:sent].rpartition(" ")[0])
    found = pieces(text[first:])
    return text[: first + found[-2][1]] if len(found) > 1 else text[:sent]
