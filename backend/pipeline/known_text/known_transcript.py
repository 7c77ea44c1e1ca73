"""The transcript of a known text: its lines as segments, each with its words; of prose, sentences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from backend.audio.vad import Speech
from backend.audio.waveform import SAMPLE_RATE
from backend.options.load_options import LoadOptions
from backend.pipeline.recognized_chunk import RecognizedChunk
from backend.pipeline.sound_tracks import SpokenTrack
from backend.pipeline.transcript_builder import Transcript, passage_warnings
from backend.process.request_warning import RequestWarning
from backend.serving.protocols import Aligner
from backend.transcript.lyrics.placing import Gap, line_segments
from backend.transcript.lyrics.sung_lines import KnownText
from backend.transcript.pauses import spans_for
from backend.transcript.segments import SegmentRules, merge
from backend.transcript.words import Word, spread

_MAX_NUMBERS = 100  # of lines, in a warning: metadata are limited


@dataclass(frozen=True)
class TextTimes:
    """The words of the whole text, which lines were not heard (by position), and the passages with their fallbacks."""

    words: list[Word]
    unheard: frozenset[int]
    parts: tuple[RecognizedChunk, ...]


def build_known_transcript(
    track: SpokenTrack, known: KnownText, found: TextTimes, language: str, load: LoadOptions, aligner: Aligner
) -> Transcript:
    """The transcript. `load` has the rules of the segments of prose; lines are segments whatever they say."""
    if known.is_prose:
        rules = SegmentRules(load.segment_gap_s, load.max_segment_s, load.max_segment_chars)
        segments = tuple(merge(known.text, found.words, rules, [(0, language)]))
    else:
        segments = tuple(line_segments(found.words, known.lines))
    ids = (tuple(token.id for token in aligner.tokens_of(known.text[s.begin : s.end])) for s in segments)
    return Transcript(
        known.text,
        language,
        track.recording.duration_s,
        segments,
        tuple(ids),
        tuple(segment.words for segment in segments),
        (*unheard_warnings(known, found.unheard), *passage_warnings(track, [*found.parts], segments)),
    )


def spread_over(known: KnownText, gap: Gap, speech: Speech) -> list[Word]:
    """The words of a gap, spread over the speech in it, or over all of it where that is too little."""
    text = known.text[gap.begin : gap.end]
    spoken = speech.within_s(round(gap.start_s * SAMPLE_RATE), round(gap.end_s * SAMPLE_RATE))
    clipped = ((max(start, gap.start_s), min(end, gap.end_s)) for start, end in spoken)
    inside = [(start, end) for start, end in clipped if start < end]
    return [word.shifted(gap.begin) for word in spread(text, spans_for(text, inside, (gap.start_s, gap.end_s)))]


def unheard_warnings(known: KnownText, unheard: frozenset[int]) -> Iterator[str]:
    """Which lines were not heard, by their numbers in the text as it was given."""
    if not unheard:
        return
    numbers = [str(known.lines[at].number) for at in sorted(unheard)]
    listed = ", ".join(numbers[:_MAX_NUMBERS]) + (", ..." if len(numbers) > _MAX_NUMBERS else "")
    unit = "sentence" if known.is_prose else "line"
    if len(numbers) == 1:
        text = f"1 {unit} is not heard ({unit} {listed}); its times are between its neighbours"
    else:
        text = f"{len(numbers)} {unit}s are not heard ({unit}s {listed}); their times are between their neighbours"
    yield RequestWarning(text, "not_heard")


def line_deltas(transcript: Transcript) -> Iterator[str]:
    """The text in pieces: each segment's, with what stands before it; together they are the text."""
    begin = 0
    for segment in transcript.segments:
        yield transcript.text[begin : segment.end]
        begin = segment.end
