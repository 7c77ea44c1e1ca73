"""What the recogniser heard, as tokens with times, and how it matches a known text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from backend.audio.vad import Speech
from backend.pipeline.recognized_chunk import RecognizedChunk
from backend.pipeline.transcript_builder import words_of
from backend.sequences.global_alignment import matched_pairs
from backend.transcript.lyrics.slices import HeardToken, Hearing, hearing
from backend.transcript.lyrics.sung_lines import KnownText, TextToken, tokens


def heard_tokens(parts: Sequence[RecognizedChunk], speech: Speech) -> list[HeardToken]:
    """The tokens of the chunks' texts with the aligner's times, in seconds of the recording."""
    return [token for number, part in enumerate(parts) for token in _tokens_of(number, part, speech)]


def match(
    known: KnownText, parts: Sequence[RecognizedChunk], speech: Speech
) -> tuple[list[TextToken], list[HeardToken], Hearing]:
    """The tokens of the text, those that were heard, and what that says about the lines."""
    wanted = [token for line in known.lines for token in tokens(known.text, line.begin, line.end)]
    heard = heard_tokens(parts, speech)
    pairs = matched_pairs([token.key for token in wanted], [token.key for token in heard])
    return wanted, heard, hearing(known.lines, wanted, heard, pairs)


def _tokens_of(number: int, part: RecognizedChunk, speech: Speech) -> Iterator[HeardToken]:
    text = part.recognition.text
    for word in words_of(part, speech) if text else ():
        inside = [*tokens(text, word.begin, word.end)]
        total = sum(len(token.key) for token in inside)
        passed = 0
        for token in inside:
            start_s = word.start_s + (word.end_s - word.start_s) * passed / total
            passed += len(token.key)
            end_s = word.start_s + (word.end_s - word.start_s) * passed / total
            yield HeardToken(token.key, start_s, end_s, number)
