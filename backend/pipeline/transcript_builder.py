"""One transcript of a request's chunks: their texts, words, tokens and warnings, and what each segment has of them."""

from __future__ import annotations

import asyncio
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from backend.audio.vad import Speech
from backend.options.load_options import LoadOptions, TranscribeOptions
from backend.pipeline.end_of_utterance import ends_utterance
from backend.pipeline.language_consistency import asked_language_warnings
from backend.pipeline.recognized_chunk import RecognizedChunk
from backend.pipeline.sound_tracks import SpokenTrack
from backend.process.request_warning import RequestWarning, kinds_of
from backend.serving.protocols import Token
from backend.transcript.joining import join
from backend.transcript.pauses import spans_for, trim_to_speech
from backend.transcript.segments import Segment, SegmentRules, merge
from backend.transcript.subtitles.captions import CaptionRules
from backend.transcript.words import Word, place, spread

T = TypeVar("T")

_THREAD_FROM_S = 60.0  # longer recordings are processed in a thread: their words would block the event loop

_OF_SEVERAL = {"was": "were", "its": "their", "itself": "themselves"}
COARSE = "some or all word times are not available ({cause}); segment times there are estimates"


@dataclass(frozen=True)
class Transcript:
    """The result of a request. `language`: a code, or "" without speech.

    `segments` are slices of `text`. `tokens` and `words` have one entry for each segment: the ids of its tokens, and
    its words, if they were requested, that the aligner timed. `warnings`: the parts of x-asr-warning. `eou`: the text
    ends an utterance, by the option live_eou.
    """

    text: str
    language: str
    duration_s: float
    segments: tuple[Segment, ...]
    tokens: tuple[tuple[int, ...], ...]
    words: tuple[tuple[Word, ...], ...]
    warnings: tuple[str, ...]
    eou: bool = False


async def in_thread_if_long(duration_s: float, work: Callable[[], T]) -> T:
    """The result of `work` on a recording of `duration_s` seconds; in a thread if the recording is over a minute long.

    For an hour of words the work would delay Health. For a minute, the way to a thread and back takes longer than the
    work.
    """
    return work() if duration_s <= _THREAD_FROM_S else await asyncio.to_thread(work)


def build_transcript(
    track: SpokenTrack,
    parts: list[RecognizedChunk],
    language: str,
    load: LoadOptions,
    options: TranscribeOptions,
) -> Transcript:
    """The chunks' texts, words and warnings as one transcript. `load` and `options` have the rules of its segments."""
    recording, speech = track.recording, track.speech
    text, offsets = join([part.recognition.text for part in parts])
    words = [word.shifted(by) for part, by in zip(parts, offsets, strict=True) for word in words_of(part, speech)]
    rules = segment_rules(load)
    languages = [(by, part.recognition.language or language) for part, by in zip(parts, offsets, strict=True)]
    segments = tuple(merge(text, words, rules, languages, recording.duration_s))
    tokens = [
        Token(token.id, token.begin + by, token.end + by)
        for part, by in zip(parts, offsets, strict=True)
        for token in part.recognition.tokens
    ]
    timed = [
        (by, by + len(part.recognition.text)) for part, by in zip(parts, offsets, strict=True) if part.units is not None
    ]
    return Transcript(
        text,
        language,
        recording.duration_s,
        segments,
        tuple(_token_ids(segment, tokens) for segment in segments),
        tuple(_words_inside(segment, timed) if options.words else () for segment in segments),
        (*passage_warnings(track, parts, segments), *asked_language_warnings(options.language, parts, speech)),
        ends_utterance(text, load.live_eou),
    )


def segment_rules(load: LoadOptions) -> SegmentRules:
    """The rules of the operator's options."""
    captions = CaptionRules(
        line_chars=load.subtitle_line_chars,
        wide_line_chars=load.subtitle_wide_line_chars,
        lines=load.subtitle_lines,
        min_s=load.subtitle_min_s,
        max_s=load.subtitle_max_s,
        max_chars_per_s=load.subtitle_max_chars_per_s,
        gap_s=load.subtitle_gap_s,
    )
    return SegmentRules(
        load.segment_gap_s, load.max_segment_s, load.max_segment_chars, captions if load.subtitles else None
    )


def words_of(part: RecognizedChunk, speech: Speech) -> list[Word]:
    """The words of a chunk, with the aligner's times or with estimates, in seconds of the recording."""
    chunk, text = part.chunk, part.recognition.text
    spoken = speech.within_s(chunk.start, chunk.end)
    if part.units is None:
        return spread(text, spans_for(text, spoken, (chunk.start_s, chunk.end_s)))
    units = [(unit.text, unit.start_s + chunk.start_s, unit.end_s + chunk.start_s) for unit in part.units]
    return trim_to_speech(text, place(text, units, start_s=chunk.start_s, end_s=chunk.end_s), spoken)


def _words_inside(segment: Segment, spans: list[tuple[int, int]]) -> tuple[Word, ...]:
    """The segment's words that lie in one of the sorted `spans` of the text."""
    begins = [begin for begin, _ in spans]
    return tuple(
        word for word in segment.words if (at := bisect_right(begins, word.begin)) and word.end <= spans[at - 1][1]
    )


def _token_ids(segment: Segment, tokens: list[Token]) -> tuple[int, ...]:
    """The ids of the tokens that overlap the segment."""
    first = bisect_right(tokens, segment.begin, key=lambda token: token.end)
    last = bisect_left(tokens, segment.end, key=lambda token: token.begin)
    return tuple(token.id for token in tokens[first:last])


def of_passages(count: int, fallback: str) -> str:
    """The sentence about so many passages. `fallback`: a text of recognized_chunk.py or alignment.py, about one."""
    if count == 1:
        return f"1 passage {fallback}"
    return f"{count} passages " + re.sub(r"\b(was|its|itself)\b", lambda word: _OF_SEVERAL[word[0]], fallback)


def passage_warnings(track: SpokenTrack, parts: list[RecognizedChunk], segments: tuple[Segment, ...]) -> Iterator[str]:
    yield from track.warnings()
    for fallback, count in sorted(Counter(fallback for part in parts for fallback in part.fallbacks).items()):
        yield RequestWarning(of_passages(count, fallback), *kinds_of(fallback))
    causes = sorted({part.coarse_because for part in parts if part.recognition.text} - {""})
    if causes and segments:
        kinds = (kind for cause in causes for kind in kinds_of(cause))
        yield RequestWarning(COARSE.format(cause=", ".join(causes)), *kinds)
