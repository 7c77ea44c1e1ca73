"""Forced alignment of a chunk's text: the aligner's units, and a second alignment of units that it placed wrongly.

- A failure of the aligner is a reason for coarse times, never for a status.
- A chunk is at most a minute long, where the aligner is at its best (thresholds.MAX_ALIGNED_CHUNK_S).
- Lost units, which the aligner piled up in too little time or wanted to place outside the chunk, are aligned again
  alone, between their neighbours. If that fails too, the fallback is to spread them over the speech there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from statistics import median

from backend.audio.vad import Speech
from backend.audio.waveform import SAMPLE_RATE, Chunk
from backend.errors import AlignerUnavailable, EngineFailure, OutOfMemory
from backend.languages import ALIGNABLE
from backend.pipeline.recognized_chunk import RecognizedChunk
from backend.process.gathering import gather_or_cancel
from backend.process.request_stats import RequestStats
from backend.process.request_warning import RequestWarning
from backend.serving.model_instance import Instance, WithAligner
from backend.serving.protocols import AlignedUnit, Passage
from backend.serving.resident import Resident
from backend.serving.scheduler import Scheduler
from backend.thresholds import (
    MAX_MERGED_GAP_UNITS,
    MAX_REALIGNED_RUNS,
    MIN_UNIT_ROOM_S,
    MIN_UNIT_ROOM_SHARE,
    REALIGNMENT_MARGIN_S,
)
from backend.transcript.implausible_runs import find_implausible_runs
from backend.transcript.pauses import SpeechClock, spans_for

UNKNOWN_TO_ALIGNER = RequestWarning("the aligner does not know the language", "aligner_language")
REALIGNED = RequestWarning("had words piled up or out of place and was aligned again", "realigned")
SPREAD = RequestWarning("could not be aligned; its words are spread over its speech", "spread")
FAILED = RequestWarning("the aligner failed", "aligner_failed")

_RUN_FAILURES = (EngineFailure, OutOfMemory)


class Alignment:
    """Aligns the chunks of one request."""

    def __init__(self, resident: Resident, scheduler: Scheduler, speech: Speech, stats: RequestStats) -> None:
        self._resident = resident
        self._scheduler = scheduler
        self._speech = speech
        self._stats = stats

    async def align(self, instance: Instance, parts: list[RecognizedChunk], language: str) -> list[RecognizedChunk]:
        """The chunks with the aligner's units, or with the reason why there are none.

        `language`: the recording's, for chunks without a language of their own. The aligner is loaded if it is not yet.
        """
        if not any((part.recognition.language or language) in ALIGNABLE for part in parts if part.recognition.text):
            return [replace(part, coarse_because=UNKNOWN_TO_ALIGNER) for part in parts]
        with self._resident.usage.aligner():
            try:
                equipped = await self._resident.equipped(instance)
            except AlignerUnavailable as unavailable:
                cause = RequestWarning(str(unavailable), unavailable.kind)
                return [replace(part, coarse_because=cause) for part in parts]
            return await gather_or_cancel(self._align(equipped, part, language) for part in parts)

    async def _align(self, equipped: WithAligner, part: RecognizedChunk, language: str) -> RecognizedChunk:
        chunk_language = part.recognition.language or language
        if not part.recognition.text:
            return part
        if chunk_language not in ALIGNABLE:
            return replace(part, coarse_because=UNKNOWN_TO_ALIGNER)
        passage = Passage(part.chunk.samples, part.recognition.text, chunk_language)
        try:
            units = await self._submit(equipped, passage)
        except AlignerUnavailable as unavailable:  # for this language
            return replace(part, coarse_because=RequestWarning(str(unavailable), unavailable.kind))
        except _RUN_FAILURES:  # the text is worth more than its times
            return replace(part, coarse_because=FAILED)
        fallbacks = []
        lost = _lost_runs(units)
        min_room_s = _min_room_s(units, lost)
        for run in lost:
            first, after = _with_room(units, *run, part.chunk.duration_s, min_room_s)
            units[first:after], fallback = await self._realign(equipped, part.chunk, passage, units, first, after)
            fallbacks.append(fallback)
        return replace(part, units=tuple(units), fallbacks=(*part.fallbacks, *fallbacks))

    async def _realign(
        self,
        equipped: WithAligner,
        chunk: Chunk,
        passage: Passage,
        units: Sequence[AlignedUnit],
        first: int,
        after: int,
    ) -> tuple[list[AlignedUnit], str]:
        """Units [first, after) of a passage, aligned between their neighbours or spread there, and which of the two."""
        begin_s, end_s = _time_between(units, first, after, chunk.duration_s)
        texts = tuple(unit.text for unit in units[first:after])
        if after - first < len(units):  # aligning the whole passage again would give the same times
            from_s = max(begin_s - REALIGNMENT_MARGIN_S, 0.0)
            to_s = min(end_s + REALIGNMENT_MARGIN_S, chunk.duration_s)
            samples = passage.samples[round(from_s * SAMPLE_RATE) : round(to_s * SAMPLE_RATE)]
            try:
                realigned = await self._submit(equipped, replace(passage, samples=samples, units=texts))
            except _RUN_FAILURES:  # the other units are good
                realigned = []
            if len(realigned) == len(texts) and not _lost_runs(realigned):
                return [_shifted(unit, from_s, begin_s, end_s) for unit in realigned], REALIGNED
        spoken = self._speech.within_s(
            chunk.start + round(begin_s * SAMPLE_RATE), chunk.start + round(end_s * SAMPLE_RATE)
        )
        inside = [(max(start - chunk.start_s, begin_s), min(end - chunk.start_s, end_s)) for start, end in spoken]
        return _spread(texts, spans_for("".join(texts), inside, (begin_s, end_s))), SPREAD

    async def _submit(self, equipped: WithAligner, passage: Passage) -> list[AlignedUnit]:
        return await self._scheduler.submit(
            equipped.alignment, passage, audio_s=passage.samples.size / SAMPLE_RATE, owner=self._stats
        )


def _lost_runs(units: Sequence[AlignedUnit]) -> list[tuple[int, int]]:
    """Runs of lost units, as ranges [first, after) of their numbers: sorted, apart, and at most MAX_REALIGNED_RUNS.

    A unit is lost if it is piled up with its neighbours, outside the passage, or without a finite time.
    """
    runs: list[tuple[int, int]] = []
    single = [(number, number + 1) for number, unit in enumerate(units) if unit.outside or not _is_finite(unit)]
    for first, after in sorted([*find_implausible_runs([(unit.start_s, unit.end_s) for unit in units]), *single]):
        if runs and first <= runs[-1][1] + MAX_MERGED_GAP_UNITS:
            runs[-1] = runs[-1][0], max(runs[-1][1], after)
        else:
            runs.append((first, after))
    return runs if len(runs) <= MAX_REALIGNED_RUNS else [(runs[0][0], runs[-1][1])]


def _is_finite(unit: AlignedUnit) -> bool:
    return math.isfinite(unit.start_s) and math.isfinite(unit.end_s)


def _shifted(unit: AlignedUnit, by_s: float, begin_s: float, end_s: float) -> AlignedUnit:
    """The unit `by_s` seconds later, but inside [begin_s, end_s]."""
    return AlignedUnit(
        unit.text, min(max(unit.start_s + by_s, begin_s), end_s), min(max(unit.end_s + by_s, begin_s), end_s)
    )


def _time_between(units: Sequence[AlignedUnit], first: int, after: int, duration_s: float) -> tuple[float, float]:
    """The time between the neighbours of units [first, after), in seconds from the start of the passage."""
    return units[first - 1].end_s if first else 0.0, units[after].start_s if after < len(units) else duration_s


def _min_room_s(units: Sequence[AlignedUnit], lost: Sequence[tuple[int, int]]) -> float:
    """The time that a lost unit needs, in seconds, by the median pace of the other units."""
    lost_numbers = {number for first, after in lost for number in range(first, after)}
    paces_s = [
        units[number + 1].start_s - units[number].start_s
        for number in range(len(units) - 1)
        if not {number, number + 1} & lost_numbers
    ]
    return min(MIN_UNIT_ROOM_S, MIN_UNIT_ROOM_SHARE * median(paces_s)) if paces_s else MIN_UNIT_ROOM_S


def _with_room(
    units: Sequence[AlignedUnit], first: int, after: int, duration_s: float, min_room_s: float
) -> tuple[int, int]:
    """Units [first, after), extended by neighbours until there is time for all of them.

    On each side at most as many neighbours are added as units were lost: in fast speech more of them bring no room.
    """
    for _ in range(after - first):
        begin_s, end_s = _time_between(units, first, after, duration_s)
        if end_s - begin_s >= min_room_s * (after - first):
            break
        first, after = max(first - 1, 0), min(after + 1, len(units))
    return first, after


def _spread(texts: Sequence[str], spoken: Sequence[tuple[float, float]]) -> list[AlignedUnit]:
    """Units spread over speech, each with a share in proportion to its length in characters."""
    clock = SpeechClock(spoken)
    marks = list(accumulate((len(text) for text in texts), initial=0))
    times = [clock.total_s * mark / marks[-1] for mark in marks]
    return [
        AlignedUnit(text, clock.word_start_s(start), clock.word_end_s(end))
        for text, (start, end) in zip(texts, pairwise(times), strict=True)
    ]
