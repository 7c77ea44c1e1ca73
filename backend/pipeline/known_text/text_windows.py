"""A known text with an aligner alone: windows of speech one after another, each given the text that it may hold.

- A window holds up to half a minute of speech, without the long pauses between. It is given somewhat more text than its
  share, so the aligner never has to stretch too little of it.
- The aligner's certainty says how far the text is where it belongs: what is too much, or not spoken, has nearly none.
  That part is settled but for its last words; the next window begins where it ends, with the text that is left.
- Where a window does not hold the text that is next, it is tried with each of the following lines, because some may not
  be spoken. Where it holds none of them, it is passed over. What has no place in the end was not heard.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from backend.audio.waveform import SAMPLE_RATE, Chunk
from backend.errors import NothingHeard
from backend.pipeline.known_text.known_transcript import TextTimes, spread_over
from backend.pipeline.known_text.settling import Progress, certain_count
from backend.pipeline.known_text.speech_window import SpeechWindow, sound_s, speech_window
from backend.pipeline.sound_tracks import SpokenTrack
from backend.process.gathering import gather_or_cancel
from backend.process.request_stats import RequestStats
from backend.serving.model_instance import AlignerAlone
from backend.serving.protocols import AlignedUnit, Passage
from backend.serving.scheduler import Scheduler
from backend.thresholds import MAX_JUMP_LINES, MAX_WINDOW_S, MIN_HEARD_SHARE, MIN_WINDOW_SHARE, WINDOW_TEXT_SHARE
from backend.transcript.lyrics.placing import confined, filled, gaps
from backend.transcript.lyrics.sung_lines import KnownText
from backend.transcript.pauses import trim_to_speech
from backend.transcript.speech_rate import spoken_letters
from backend.transcript.timing import Times
from backend.transcript.words import Word, place

_MARGIN_S = 0.1  # of a pause that may still be a word, by the detector
_MAX_UNIT_CHARS = 100  # a longer one is no word, and the aligner would pay for all of it
_MIN_SOUND = SAMPLE_RATE // 2  # samples: a shorter rest of the recording holds no text


@dataclass(frozen=True)
class _Unit:
    text: str
    line: int
    letters: int


class WindowedAlignment:
    """Aligns the text of one request, which is in `language`."""

    def __init__(
        self, scheduler: Scheduler, instance: AlignerAlone, track: SpokenTrack, language: str, stats: RequestStats
    ) -> None:
        self._scheduler = scheduler
        self._instance = instance
        self._speech = track.speech
        self._max_window_s = instance.options.max_chunk_s or MAX_WINDOW_S
        self._duration_s = track.recording.duration_s
        self._language = language
        self._stats = stats

    async def align(self, known: KnownText, chunks: Sequence[Chunk]) -> TextTimes:
        """The times of all words of the text. `chunks`: the speech of the recording. Raises NothingHeard."""
        units = await asyncio.to_thread(self._units, known)
        settled = await self._settled(units, chunks)
        return await asyncio.to_thread(self._placed, known, units, settled)

    def _units(self, known: KnownText) -> list[_Unit]:
        return [
            _Unit(text, number, spoken_letters(text))
            for number, line in enumerate(known.lines)
            for text in self._instance.aligner.units_of(known.text[line.begin : line.end], self._language)
            if len(text) <= _MAX_UNIT_CHARS
        ]

    async def _settled(self, units: Sequence[_Unit], chunks: Sequence[Chunk]) -> list[Times | None]:
        """The times of the units, in seconds of the recording; None for those that were not heard."""
        settled: list[Times | None] = [None] * len(units)
        progress = Progress(sum(unit.letters for unit in units), sound_s(chunks, 0))
        position, first = chunks[0].start, 0
        while first < len(units) and chunks[-1].end - position >= _MIN_SOUND:
            window = speech_window(chunks, position, self._max_window_s)
            letters = progress.pace * window.samples.size / SAMPLE_RATE
            found = await self._best(window, units, first, letters)
            if found is None:
                progress.passed(0, window.samples.size / 2 / SAMPLE_RATE)
                position = window.sample(window.samples.size // 2)
                continue
            begin, aligned = found
            settled[begin : begin + len(aligned)] = [window.times_s(unit) for unit in aligned]
            after = begin + len(aligned)
            reached = window.sample(round(aligned[-1].end_s * SAMPLE_RATE))
            spoken_s = sound_s(chunks, position) - sound_s(chunks, reached)
            progress.passed(sum(unit.letters for unit in units[first:after]), spoken_s)
            position, first = reached, after
        return settled

    async def _best(
        self, window: SpeechWindow, units: Sequence[_Unit], first: int, letters: float
    ) -> tuple[int, list[AlignedUnit]] | None:
        """The text that the window holds: the number of its first unit, and its settled units, at least one."""
        aligned = await self._aligned(window, units, first, letters)
        if count := certain_count(aligned, first + len(aligned) == len(units)):
            return first, aligned[:count]
        starts = _line_starts(units, first)
        others = await gather_or_cancel(self._aligned(window, units, start, letters) for start in starts)
        counts = [
            certain_count(other, start + len(other) == len(units), MIN_WINDOW_SHARE)
            for start, other in zip(starts, others, strict=True)
        ]
        best = max(range(len(starts)), key=lambda at: (counts[at], -at), default=None)
        if best is None or not counts[best]:
            return None
        return starts[best], others[best][: counts[best]]

    async def _aligned(
        self, window: SpeechWindow, units: Sequence[_Unit], first: int, letters: float
    ) -> list[AlignedUnit]:
        texts = tuple(unit.text for unit in _share(units[first:], letters))
        passage = Passage(window.samples, "", self._language, texts)
        return await self._scheduler.submit(
            self._instance.alignment, passage, audio_s=window.samples.size / SAMPLE_RATE, owner=self._stats
        )

    def _placed(self, known: KnownText, units: Sequence[_Unit], settled: Sequence[Times | None]) -> TextTimes:
        words: list[Word] = []
        unheard = set()
        first = 0
        for number, line in enumerate(known.lines):
            after = first
            while after < len(units) and units[after].line == number:
                after += 1
            members = zip(units[first:after], settled[first:after], strict=True)
            timed = [(unit, time) for unit, time in members if time is not None and self._is_spoken(time)]
            heard = sum(unit.letters for unit, _ in timed)
            if timed and heard >= MIN_HEARD_SHARE * sum(unit.letters for unit in units[first:after]):
                text, end_s = known.text[line.begin : line.end], timed[-1][1][1]
                begin_s = self._begin_s(words[-1].end_s if words else 0.0, timed[0], units[first])
                placed = place(text, [(unit.text, *time) for unit, time in timed], start_s=begin_s, end_s=end_s)
                span = round(begin_s * SAMPLE_RATE), round(end_s * SAMPLE_RATE)
                placed = trim_to_speech(text, placed, self._speech.within_s(*span))
                words += [word.shifted(line.begin) for word in placed]
            elif after > first:
                unheard.add(number)
            first = after
        if not words:
            raise NothingHeard
        words, missing = gaps(known.text, words, self._duration_s)
        fillings = [(gap, spread_over(known, gap, self._speech)) for gap in missing]
        return TextTimes(confined(known.text, filled(words, fillings), known.lines), frozenset(unheard), ())

    def _is_spoken(self, times: Times) -> bool:
        """Whether there is speech at these times: a word is dragged into a pause beside it now and then."""
        span = (
            round((edge_s + by_s) * SAMPLE_RATE) for edge_s, by_s in zip(times, (-_MARGIN_S, _MARGIN_S), strict=True)
        )
        return bool(self._speech.within(*span))

    def _begin_s(self, earliest_s: float, first: tuple[_Unit, Times], wanted: _Unit) -> float:
        """Where a line begins whose first unit with times is `first`: earlier, by the speech, if it lacks `wanted`."""
        begin_s = first[1][0]
        if first[0] is wanted:
            return begin_s
        back = round(begin_s * SAMPLE_RATE)
        spoken = self._speech.within_s(max(round(earliest_s * SAMPLE_RATE), back - SAMPLE_RATE), back)
        return max(spoken[-1][0], earliest_s) if spoken else begin_s


def _share(units: Sequence[_Unit], letters: float) -> Sequence[_Unit]:
    """The first units, of so many letters and some more: at least one."""
    passed = 0.0
    for number, unit in enumerate(units):
        passed += unit.letters
        if passed > WINDOW_TEXT_SHARE * letters:
            return units[: number + 1]
    return units


def _line_starts(units: Sequence[_Unit], first: int) -> list[int]:
    """The first units of the lines behind that of unit `first`."""
    starts = (at for at in range(first + 1, len(units)) if units[at].line != units[at - 1].line)
    return [*islice(starts, MAX_JUMP_LINES)]
