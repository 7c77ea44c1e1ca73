"""A known text with a recogniser: what was heard is matched to it, and each slice of the text is aligned where it was.

- So instrumental breaks, choruses that come again and recordings of any length pull no line away.
- Words that were recognised as they stand in the text have the times that the aligner gave them. Slices in which others
  were heard are aligned again, with the words of the text.
- Lines that were not heard are placed between their neighbours: aligned, if there is speech that fits, or spread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from backend.audio.waveform import SAMPLE_RATE, Chunk
from backend.errors import NothingHeard
from backend.pipeline.alignment import Alignment
from backend.pipeline.known_text.heard_words import heard_tokens, match
from backend.pipeline.known_text.known_transcript import TextTimes, spread_over
from backend.pipeline.recognized_chunk import RecognizedChunk
from backend.pipeline.sound_tracks import SpokenTrack
from backend.pipeline.transcript_builder import words_of
from backend.serving.model_instance import WithAligner
from backend.serving.protocols import Recognition
from backend.thresholds import MAX_ALIGNED_CHUNK_S, MAX_SPEECH_LETTERS_PER_S, MIN_TEXT_LETTERS_PER_S
from backend.transcript.lyrics.placing import Gap, confined, filled, gaps, slice_of
from backend.transcript.lyrics.slice_times import unit_times
from backend.transcript.lyrics.slices import HeardToken, Hearing, TextSlice
from backend.transcript.lyrics.sung_lines import KnownText, TextToken
from backend.transcript.pauses import trim_to_speech
from backend.transcript.speech_rate import spoken_letters
from backend.transcript.words import Word, place

_MIN_SOUND_S = 0.2  # less is not aligned
_MAX_CHARS_PER_S = 100  # punctuation included
_MARGIN_S = 0.2  # of sound around the speech of a gap


class HeardTextAlignment:
    """Aligns the text of one request. `language`: the recording's."""

    def __init__(
        self, alignment: Alignment, equipped: WithAligner, track: SpokenTrack, known: KnownText, language: str
    ) -> None:
        self._alignment = alignment
        self._equipped = equipped
        self._speech, self._samples = track.speech, track.recording.samples
        self._duration_s = track.recording.duration_s
        self._known = known
        self._language = language

    async def align(self, recognized: list[RecognizedChunk]) -> TextTimes:
        """The times of all words of the text. Raises NothingHeard."""
        heard_parts = await self._aligned(recognized)
        tokens, heard, found = await asyncio.to_thread(match, self._known, heard_parts, self._speech)
        if not found.slices:
            raise NothingHeard
        windows = self._windows(heard_parts, heard, found)
        inexact = {
            number: self._part(*window, self._text(tokens, piece))
            for number, (piece, window) in enumerate(zip(found.slices, windows, strict=True))
            if not piece.is_exact and _is_alignable(window, self._text(tokens, piece))
        }
        slice_parts = await self._aligned([*inexact.values()])
        by_number = dict(zip(inexact, slice_parts, strict=True))

        def heard_words() -> tuple[list[Word], list[Gap]]:
            words = [
                word
                for number, (piece, window) in enumerate(zip(found.slices, windows, strict=True))
                for word in self._slice_words(piece, tokens, heard, by_number.get(number), window)
            ]
            return gaps(self._known.text, words, self._duration_s)

        words, missing = await asyncio.to_thread(heard_words)
        spoken = {gap: part for gap in missing if (part := self._gap_part(gap)) is not None}
        gap_parts = await self._aligned([*spoken.values()])
        fillings = dict.fromkeys(missing, None) | dict(zip(spoken, gap_parts, strict=True))

        def all_words() -> list[Word]:
            inside = [(gap, self._gap_words(gap, part)) for gap, part in fillings.items()]
            return confined(self._known.text, filled(words, inside), self._known.lines)

        return TextTimes(await asyncio.to_thread(all_words), found.unheard, (*heard_parts, *slice_parts))

    async def _aligned(self, parts: list[RecognizedChunk]) -> list[RecognizedChunk]:
        return await self._alignment.align(self._equipped, parts, self._language)

    def _windows(
        self, parts: Sequence[RecognizedChunk], heard: Sequence[HeardToken], found: Hearing
    ) -> list[tuple[int, int]]:
        """The sound of each slice, [begin, end) in samples: they do not overlap."""
        windows: list[tuple[int, int]] = []
        for piece in found.slices:
            chunk = parts[heard[piece.heard_first].passage].chunk
            begin = _cut(heard, piece.heard_first, chunk, piece.heard_at[0] is None, True)
            end = _cut(heard, piece.heard_after, chunk, piece.heard_at[-1] is None, False)
            if windows and begin < windows[-1][1]:  # both want the same words that agree with nothing
                begin = min(max(begin, windows[-1][1]), round(_first_s(piece, heard) * SAMPLE_RATE))
                windows[-1] = windows[-1][0], min(windows[-1][1], begin)
            windows.append((begin, end))
        return windows

    def _slice_words(
        self,
        piece: TextSlice,
        tokens: Sequence[TextToken],
        heard: Sequence[HeardToken],
        part: RecognizedChunk | None,
        window: tuple[int, int],
    ) -> Iterator[Word]:
        """The words of a slice. `part`: it, aligned with the text's own words."""
        aligned = None
        if part is not None and part.units is not None:
            aligned = [(token.start_s, token.end_s) for token in heard_tokens([part], self._speech)]
            aligned = aligned if len(aligned) == piece.after - piece.first else None
        begin_s, end_s = window[0] / SAMPLE_RATE, window[1] / SAMPLE_RATE
        units = unit_times(piece, tokens, heard, aligned, begin_s, end_s)
        begin, end = slice_of(self._known.lines, tokens, piece.first, piece.after)
        text = self._known.text[begin:end]
        placed = place(text, units, start_s=begin_s, end_s=end_s)
        return (word.shifted(begin) for word in trim_to_speech(text, placed, self._speech.within_s(*window)))

    def _text(self, tokens: Sequence[TextToken], piece: TextSlice) -> str:
        return self._known.text[slice(*slice_of(self._known.lines, tokens, piece.first, piece.after))]

    def _gap_part(self, gap: Gap) -> RecognizedChunk | None:
        """The text of a gap as a passage, if there is speech between its neighbours that it may be."""
        begin, end = round(gap.start_s * SAMPLE_RATE), round(gap.end_s * SAMPLE_RATE)
        spoken = self._speech.within(begin, end)
        letters = spoken_letters(text := self._known.text[gap.begin : gap.end])
        if not spoken or not letters:
            return None
        margin = round(_MARGIN_S * SAMPLE_RATE)
        begin, end = max(spoken[0][0] - margin, begin), min(spoken[-1][1] + margin, end)
        pace = letters / self._speech.seconds(begin, end)
        is_plausible = MIN_TEXT_LETTERS_PER_S <= pace <= MAX_SPEECH_LETTERS_PER_S
        if not is_plausible or end - begin > MAX_ALIGNED_CHUNK_S * SAMPLE_RATE or not _is_alignable((begin, end), text):
            return None
        return self._part(begin, end, text)

    def _gap_words(self, gap: Gap, part: RecognizedChunk | None) -> list[Word]:
        if part is None:
            return spread_over(self._known, gap, self._speech)
        return [word.shifted(gap.begin) for word in words_of(part, self._speech)]

    def _part(self, begin: int, end: int, text: str) -> RecognizedChunk:
        chunk = Chunk(begin, self._samples[begin:end])
        return RecognizedChunk(chunk, Recognition(text, self._language, True, ()))


def _cut(heard: Sequence[HeardToken], at: int, chunk: Chunk, is_open: bool, is_begin: bool) -> int:
    """The sample between heard tokens `at` - 1 and `at` at which a slice begins or ends.

    `is_open`: a word of the slice there was not heard, so it may fill the pause. At an edge of the chunk, that edge.
    """
    edge = at - 1 if is_begin else at
    if not 0 <= edge < len(heard) or heard[edge].passage != heard[at if is_begin else at - 1].passage:
        return chunk.start if is_begin else chunk.end
    before_s, after_s = heard[at - 1].end_s, heard[at].start_s
    if is_open:
        return round((before_s if is_begin else after_s) * SAMPLE_RATE)
    return round((before_s + after_s) / 2 * SAMPLE_RATE)


def _first_s(piece: TextSlice, heard: Sequence[HeardToken]) -> float:
    """Where the first word of the slice that was heard begins, in seconds."""
    return next(heard[at].start_s for at in piece.heard_at if at is not None)


def _is_alignable(window: tuple[int, int], text: str) -> bool:
    """Whether there is sound enough for the text, so what the aligner is given is bounded by its sound."""
    sound_s = max((window[1] - window[0]) / SAMPLE_RATE, 1.0)
    is_bounded = len(text) <= _MAX_CHARS_PER_S * sound_s and spoken_letters(text) <= MAX_SPEECH_LETTERS_PER_S * sound_s
    return window[1] - window[0] >= _MIN_SOUND_S * SAMPLE_RATE and is_bounded
