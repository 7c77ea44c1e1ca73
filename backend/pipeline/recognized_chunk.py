"""A recognised chunk: its text, the fallbacks that it needed, and the aligner's units.

The texts of the fallbacks stand in x-asr-warning and in the request's log line: "3 passages did not end ...".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from backend.audio.vad import Speech
from backend.audio.waveform import Chunk
from backend.process.request_warning import RequestWarning as Fallback
from backend.serving.protocols import AlignedUnit, Recognition, Token
from backend.thresholds import DOUBTFUL_LIKELIHOOD, MAX_SPEECH_LETTERS_PER_S
from backend.transcript.repetition import collapse_repetition
from backend.transcript.speech_rate import spoken_letters

TRUNCATED_ANSWER = Fallback("did not end within the token budget and was heard again", "truncated_answer")
REPETITION_LOOP = Fallback("repeated itself and was heard again", "repetition_loop")
TOO_LITTLE_TEXT = Fallback("had little text for its speech and was heard again", "too_little_text")
OTHER_LANGUAGE = Fallback(
    "was in another language than the rest and was heard again in the recording's", "other_language"
)
NO_TEXT = Fallback("had speech and no text and was heard again", "no_text")
PROMPT_LEAKAGE = Fallback("recited the prompt and was heard again without it", "prompt_leakage")
LOOP_COLLAPSED = Fallback("went on repeating itself; one phrase of the repetition is left", "loop_collapsed")
STILL_TRUNCATED = Fallback("did not end even so; its text may be incomplete", "still_truncated")
STILL_NO_TEXT = Fallback("had speech and still no text", "still_no_text")
ALREADY_SENT = Fallback("was heard again after a part of its text had been sent; that part stands", "already_sent")

NO_SPEECH = Recognition("", None, True, ())


@dataclass(frozen=True)
class RecognizedChunk:
    """A chunk and its recognition.

    `units`: the aligner's units, in seconds from the start of the chunk; None without alignment, and then
    `coarse_because` is the reason if there is one. `fallbacks`: those needed for this chunk, and on the first piece of
    a chunk that was split, those needed for the whole.
    """

    chunk: Chunk
    recognition: Recognition
    units: tuple[AlignedUnit, ...] | None = None
    coarse_because: str = ""
    fallbacks: tuple[str, ...] = ()


def speech_by_language(recognized: Iterable[RecognizedChunk], speech: Speech) -> Counter[str]:
    """Milliseconds of speech in each language, by its code, of the chunks that have text and a language."""
    speech_ms: Counter[str] = Counter()
    for part in recognized:
        if part.recognition.language and part.recognition.text:
            # A text counts even where the detector found no speech: it may have missed it.
            seconds = max(speech.seconds(part.chunk.start, part.chunk.end), 0.01)
            speech_ms[part.recognition.language] += round(1000 * seconds)
    return speech_ms


def main_language(
    recognized: Iterable[RecognizedChunk], speech: Speech, before: Mapping[str, int] = MappingProxyType({})
) -> str:
    """The code of the language with the most seconds of speech; "" if there is no text.

    `before`: milliseconds of speech in each language that belong to the same recording.
    """
    speech_ms = Counter(before) + speech_by_language(recognized, speech)
    return speech_ms.most_common(1)[0][0] if speech_ms else ""


def finalized(part: RecognizedChunk) -> RecognizedChunk:
    """An answer that did not end, as it can be shown: a repetition loop collapsed, any other marked as truncated."""
    recognition = part.recognition
    if recognition.finished or {LOOP_COLLAPSED, STILL_TRUNCATED} & set(part.fallbacks):
        return part
    text = collapse_repetition(recognition.text) if recognition.looped else recognition.text
    kept = (token for token in recognition.tokens if token.begin < len(text))
    tokens = tuple(token._replace(end=min(token.end, len(text))) for token in kept)
    shown = replace(part, recognition=replace(recognition, text=text, tokens=tokens))
    return with_fallbacks([shown], LOOP_COLLAPSED if text != recognition.text else STILL_TRUNCATED)[0]


def letter_count(parts: Iterable[RecognizedChunk]) -> int:
    """How much speech the texts stand for, in letters; 0 if they have none. Comparable across languages."""
    return sum(spoken_letters(part.recognition.text) for part in parts)


def is_too_fast(part: RecognizedChunk, speech: Speech) -> bool:
    """Whether there is more text than anybody can say in the time."""
    return letter_count([part]) > MAX_SPEECH_LETTERS_PER_S * speech.seconds(part.chunk.start, part.chunk.end)


def is_doubtful_speech(chunk: Chunk, speech: Speech) -> bool:
    """Whether the detector is not sure that the sound is speech."""
    return speech.mean_likelihood(chunk.start, chunk.end) < DOUBTFUL_LIKELIHOOD


def with_fallbacks(parts: list[RecognizedChunk], *fallbacks: str) -> list[RecognizedChunk]:
    """The parts of one chunk, with the chunk's fallbacks noted on the first."""
    return [replace(parts[0], fallbacks=(*parts[0].fallbacks, *fallbacks)), *parts[1:]]


def spliced(
    chunk: Chunk, parts: Sequence[RecognizedChunk], text: str, language: str | None, tokens: tuple[Token, ...]
) -> RecognizedChunk:
    """The parts of a chunk as one with another text, of which these are the tokens."""
    is_finished = all(part.recognition.finished for part in parts)
    fallbacks = tuple(fallback for part in parts for fallback in part.fallbacks)
    return RecognizedChunk(chunk, Recognition(text, language, is_finished, tokens), fallbacks=fallbacks)
