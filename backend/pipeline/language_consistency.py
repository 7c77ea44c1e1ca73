"""Which chunks contradict the language of their recording, and whether hearing them in that language is likelier.

The model detects the language of every chunk anew and errs where there is little speech, so a word of English may stand
in a German recording that nobody said. But told a language it translates what is said in another one
(QwenLM/Qwen3-ASR issue 16). So:

- A chunk is doubted only beside a clear main language, and if it is short, its speech is doubtful, or it is alone
  between two chunks of the main language.
- A language that was detected in two chunks in a row is really spoken in the recording and is not doubted anywhere. The
  pieces of a chunk that was split are one: what the model mistook once it mistakes twice.
- The answer in the main language must be complete, in the script of that language, and no faster than anybody speaks.
  After that the letters decide: for a short or doubtful chunk it may have somewhat fewer than the first answer, for a
  long, clear one it must have many more, because a translation has about as many.
- Chunks without text or without a detected language count as if they were not there.
- Of a live stream, what follows is not known: an utterance is judged by those before it (LanguageHistory) alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, groupby, pairwise
from operator import itemgetter

from backend.audio.vad import Speech
from backend.audio.waveform import Chunk
from backend.languages import scripts_of
from backend.pipeline.recognized_chunk import (
    LOOP_COLLAPSED,
    STILL_TRUNCATED,
    RecognizedChunk,
    is_doubtful_speech,
    is_too_fast,
    letter_count,
    speech_by_language,
)
from backend.process.request_warning import RequestWarning
from backend.thresholds import (
    MAX_SHORT_SPEECH_S,
    MIN_ASKED_LANGUAGE_CHECK_S,
    MIN_ASKED_LANGUAGE_LETTERS_PER_S,
    MIN_LANGUAGE_RETRY_GAIN,
    MIN_LANGUAGE_RETRY_SHARE,
    MIN_MAIN_LANGUAGE_SHARE,
)
from backend.transcript.scripts import script_of
from backend.transcript.speech_rate import spoken_letters


@dataclass
class LanguageHistory:
    """The languages that were detected so far, first answers alone: by milliseconds of speech, the last, the trusted.

    It holds no text, and is as small after hours as after a minute.
    """

    speech_ms: Counter[str] = field(default_factory=Counter)
    last: str = ""
    trusted: frozenset[str] = frozenset()

    def add(self, pieces: Sequence[RecognizedChunk], speech: Speech) -> None:
        """Take the first answers for the pieces of the next chunk."""
        self.speech_ms += speech_by_language(pieces, speech)
        for language, _ in _detected([pieces]):
            self.trusted |= {language} if language == self.last else frozenset()
            self.last = language

    @property
    def main(self) -> str:
        """The language with clearly most of the speech; "" if there is none."""
        language, speech_ms = self.speech_ms.most_common(1)[0] if self.speech_ms else ("", 0)
        return language if speech_ms >= MIN_MAIN_LANGUAGE_SHARE * self.speech_ms.total() else ""

    def doubts(self, language: str | None, chunk: Chunk, speech: Speech) -> bool:
        """Whether the language of the next chunk, by what there is of it, may turn out to be a mistake."""
        if not language or not self.main or language in {self.main, self.last, *self.trusted}:
            return False
        return is_weak(chunk, speech)


NOTHING_BEFORE = LanguageHistory()


def contradicting(
    chunks: Sequence[Sequence[RecognizedChunk]], main: str, speech: Speech, before: LanguageHistory = NOTHING_BEFORE
) -> frozenset[int]:
    """The numbers of the pieces to hear again in `main`, the language with most of the recording's speech.

    `chunks`: the pieces of each chunk, which are numbered through. `before`: of the chunks before these.
    """
    parts = [part for pieces in chunks for part in pieces]
    speech_ms = before.speech_ms + speech_by_language(parts, speech)
    if len(speech_ms) == 1 or speech_ms[main] < MIN_MAIN_LANGUAGE_SHARE * speech_ms.total():
        return frozenset()
    detected = _detected(chunks)
    languages = [before.last, *(language for language, _ in detected)]
    trusted = {main, *before.trusted, *(one for one, following in pairwise(languages) if one == following)}
    return frozenset(
        number
        for at, (language, numbers) in enumerate(detected, start=1)
        for number in numbers
        if language not in trusted
        and (languages[at - 1 : at + 2 : 2] == [main, main] or is_weak(parts[number].chunk, speech))
    )


def _detected(chunks: Sequence[Sequence[RecognizedChunk]]) -> list[tuple[str, list[int]]]:
    """The languages in order, each with the numbers of its pieces: those of one chunk that are in the same language."""
    detected: list[tuple[str, list[int]]] = []
    numbers = count()
    for pieces in chunks:
        heard = [(part.recognition.language, number) for part, number in zip(pieces, numbers, strict=False)]
        spoken = [(language, number) for language, number in heard if language]
        detected += [(language, [number for _, number in run]) for language, run in groupby(spoken, itemgetter(0))]
    return detected


def likelier(first: RecognizedChunk, again: RecognizedChunk, speech: Speech) -> RecognizedChunk:
    """The answer to keep, `first` or that in the main language, which then has the fallbacks of both."""
    if not (again.recognition.finished and letter_count([again]) and _is_credible(again, speech)):
        return first
    if not _is_credible(first, speech):
        min_letters: float = 1
    elif is_weak(first.chunk, speech):
        min_letters = MIN_LANGUAGE_RETRY_SHARE * letter_count([first])
    else:
        min_letters = MIN_LANGUAGE_RETRY_GAIN * letter_count([first])
    if letter_count([again]) < min_letters:
        return first
    of_first = (fallback for fallback in first.fallbacks if fallback not in (LOOP_COLLAPSED, STILL_TRUNCATED))
    return replace(again, fallbacks=tuple(dict.fromkeys((*of_first, *again.fallbacks))))


def asked_language_warnings(asked: str | None, parts: Sequence[RecognizedChunk], speech: Speech) -> Iterator[str]:
    """Signs that a language was asked for that is not spoken, for which the model leaves out what it does not know.

    `asked`: the request's language, a code; None: it was detected, and there are none.
    """
    text = "".join(part.recognition.text for part in parts)
    if not (asked and text):
        return
    doubt = f"is the language that was asked for ({asked}) the one that is spoken?"
    if not is_written_in(text, asked):
        yield RequestWarning(f"the text is in another script; {doubt}", "asked_language")
    speech_s = sum(speech.seconds(part.chunk.start, part.chunk.end) for part in parts) if speech.measured else 0.0
    if speech_s >= MIN_ASKED_LANGUAGE_CHECK_S and letter_count(parts) < MIN_ASKED_LANGUAGE_LETTERS_PER_S * speech_s:
        yield RequestWarning(f"there is little text for {speech_s:.0f} s of speech; {doubt}", "asked_language")


def is_weak(chunk: Chunk, speech: Speech) -> bool:
    """Whether there is too little speech, or too doubtful speech, to detect a language in."""
    return speech.seconds(chunk.start, chunk.end) < MAX_SHORT_SPEECH_S or is_doubtful_speech(chunk, speech)


def _is_credible(part: RecognizedChunk, speech: Speech) -> bool:
    """Whether the text is in a script of its language, and not more than anybody can say in the time."""
    return is_written_in(part.recognition.text, part.recognition.language or "") and not is_too_fast(part, speech)


def is_written_in(text: str, language: str) -> bool:
    """Whether at least half of the letters, by what they take to say, are of a script of `language`.

    True without letters: digits are written alike everywhere.
    """
    letters = [char for char in text if script_of(char)]
    own = [char for char in letters if script_of(char) in scripts_of(language)]
    return 2 * spoken_letters("".join(own)) >= spoken_letters("".join(letters))
